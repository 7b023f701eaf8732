"""A cluster of one control plane and two workers that share a memory, in containers of one machine, made by kind.

The shared memory is a folder on the machine's tmpfs, mounted in both workers: what a switch and CXL devices would be.
The network between pods is plain: a pair of interfaces for each pod, one route for each node.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import binaries

from e2e import archive, engine

NAME = "gismo-e2e"
SHARED_IN_NODES = "/var/lib/gismo/emulated"
_SHARED = Path("/dev/shm/gismo-e2e")
_IMAGES_IN_NODES = "/images"
_LOADED = "/var/lib/gismo-e2e"
_NETWORK = "kind"
_LABEL = "io.x-k8s.kind.cluster"  # of kind's containers
_FREEZER = Path("/sys/fs/cgroup/freezer")  # where cgroups are of version 1
_WORKERS = 2
_READY_S = 180
_CNI_FILE = "/etc/cni/net.d/10-gismo-e2e.conflist"


class ClusterFailed(RuntimeError):
    """A command of kind or kubectl failed; the message has the end of what it said."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node: a container of the same name."""

    name: str
    address: str
    pods: str  # the addresses of its pods, as a CIDR
    worker: bool


def kubeconfig() -> Path:
    """The file that kubectl takes for this cluster."""
    return binaries.cache() / "cluster" / "kubeconfig"


def shared() -> Path:
    """The workers' shared memory, on this machine."""
    return _SHARED


def exists() -> bool:
    """Is there a cluster already?"""
    return NAME in _kind("get", "clusters").split()


def create(image: str) -> None:
    """Make it of nodes of this image; it wants to settle() then."""
    clear_shared()
    kubeconfig().parent.mkdir(parents=True, exist_ok=True)
    config = json.dumps(_configuration())
    _kind("create", "cluster", f"--image={image}", f"--kubeconfig={kubeconfig()}", "--config=-", stdin=config)


def clear_shared() -> None:
    """The shared memory of a cluster that is to be made is there, and nothing in it.

    A cluster that ended otherwise than by `down` (its engine was killed, its cache removed) leaves its pools there, of
    which a new API knows nothing: their labels would keep the new ones out, as they must.
    """
    shutil.rmtree(_SHARED, ignore_errors=True)
    _SHARED.mkdir()


def settle() -> None:
    """All nodes are Ready afterwards and all pods reach one another; also after this machine was started anew."""
    in_time = f"--timeout={_READY_S}s"
    kubectl("wait", "--for=jsonpath={.spec.podCIDR}", "node", "--all", in_time)
    join_network()
    kubectl("wait", "--for=condition=Ready", "node", "--all", in_time)
    kubectl("--namespace=kube-system", "rollout", "status", "deployment/coredns", in_time)


def delete() -> None:
    """No cluster and no network of it afterwards."""
    for node in engine.docker("ps", "--no-trunc", "--format={{.ID}}", f"--filter=label={_LABEL}={NAME}").split():
        thaw(_FREEZER / "docker" / node)
    _kind("delete", "cluster", f"--kubeconfig={kubeconfig()}")
    networks = engine.docker("network", "ls", "--format={{.Name}}").split()
    if _NETWORK in networks and not _kind("get", "clusters").split():
        engine.docker("network", "rm", _NETWORK)


def thaw(group: Path) -> None:
    """Nothing in this cgroup (v1), and in those below it, is frozen afterwards.

    A runc freezes a container for a moment while it sets its devices. If it is killed just then, with the kubelet that
    is restarted, what it has begun stays frozen for ever, cannot be killed, and keeps its whole node from ending.
    """
    for state in sorted(group.rglob("freezer.state")):
        if state.read_text().strip() != "THAWED":
            state.write_text("THAWED")


def forget() -> None:
    """Nothing of a cluster that is gone lies on this machine afterwards, its shared memory neither."""
    kubeconfig().unlink(missing_ok=True)
    shutil.rmtree(_SHARED, ignore_errors=True)


def load(image: Path) -> None:
    """Both workers have the image of an archive in the cache afterwards."""
    done = f"{_LOADED}/{image.name}"
    told = "ctr --namespace=k8s.io images import --label=io.cri-containerd.pinned=pinned --all-platforms"
    commands = f"[ -e {done} ] || {{ {told} {_IMAGES_IN_NODES}/{image.name} && mkdir -p {_LOADED} && touch {done}; }}"

    def into(node: Node) -> None:
        engine.docker("exec", node.name, "sh", "-c", commands)

    with ThreadPoolExecutor() as threads:
        list(threads.map(into, [node for node in nodes() if node.worker]))


def join_network() -> None:
    """Pods of all nodes reach one another: what a network plugin's DaemonSet does elsewhere."""
    every = nodes()
    for node in every:
        network = {
            "cniVersion": "1.0.0",
            "name": NAME,
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": "/run/cni-ipam-state",
                        "ranges": [[{"subnet": node.pods}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
        routes = [f"ip route replace {other.pods} via {other.address}" for other in every if other != node]
        commands = "\n".join(["set -e", f"cat >{_CNI_FILE}", *routes])
        engine.docker("exec", "-i", node.name, "sh", "-c", commands, stdin=json.dumps(network).encode())


def nodes() -> list[Node]:
    """All nodes, the control plane first."""
    return sorted(
        (
            Node(
                node["metadata"]["name"],
                next(one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"),
                node["spec"]["podCIDR"],
                "node-role.kubernetes.io/control-plane" not in node["metadata"]["labels"],
            )
            for node in items("nodes")
        ),
        key=lambda node: (node.worker, node.name),
    )


def kill(node: Node, command: str) -> bool:
    """SIGKILL for the processes of a node's containers whose command line begins so; was there one?"""
    found = engine.docker("exec", node.name, "sh", "-c", f"pkill -KILL --count --full '^{command}' || true")
    return int(found) > 0


def restart_kubelet(node: Node) -> None:
    """The kubelet of a node is another process afterwards."""
    engine.docker("exec", node.name, "systemctl", "reset-failed", "kubelet")  # however often that was done
    engine.docker("exec", node.name, "systemctl", "restart", "kubelet")


def tag(image: str, other: str) -> None:
    """Give an image that is in both workers another name."""
    told = f"ctr --namespace=k8s.io images tag --force {_full(image)} {_full(other)}"
    for node in (one for one in nodes() if one.worker):
        engine.docker("exec", node.name, "sh", "-c", told)


def _full(image: str) -> str:
    """As containerd keeps a name."""
    return f"docker.io/{image}" if "/" in image else f"docker.io/library/{image}"


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """One kubectl command at the cluster; its output."""
    return _run([str(binaries.ensure("kubectl")), f"--kubeconfig={kubeconfig()}", *arguments], stdin)


def items(*what: str) -> list[dict[str, Any]]:
    """Objects, as `kubectl get` has them."""
    found: list[dict[str, Any]] = json.loads(kubectl("get", *what, "--output=json"))["items"]
    return found


def is_up(pod: dict[str, Any]) -> bool:
    """Is it Ready, and not ending?"""
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
    return "deletionTimestamp" not in pod["metadata"] and conditions.get("Ready") == "True"


def _kind(*arguments: str, stdin: str | None = None) -> str:
    told = [str(binaries.ensure("kind")), arguments[0], *arguments[1:2]]
    named = [] if arguments[0] == "get" else [f"--name={NAME}"]
    return _run([*told, *named, *arguments[2:]], stdin)


def _run(command: list[str], stdin: str | None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-2000:], file=sys.stderr)
        raise ClusterFailed(f"{Path(command[0]).name} {' '.join(command[1:4])}: {done.stderr[-4000:]}")
    return done.stdout


def _configuration() -> object:
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},  # a killed agent is to come back at once
    }
    mounted = [
        {"hostPath": str(_SHARED), "containerPath": SHARED_IN_NODES},
        {"hostPath": str(archive.folder()), "containerPath": _IMAGES_IN_NODES, "readOnly": True},
    ]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"disableDefaultCNI": True},
        "kubeadmConfigPatches": [json.dumps(kubelet)],
        "nodes": [{"role": "control-plane"}, *({"role": "worker", "extraMounts": mounted} for _ in range(_WORKERS))],
    }
