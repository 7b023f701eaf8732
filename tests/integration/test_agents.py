"""From `kubectl apply` to a share in a container: the operator and the agents of two nodes as real processes, a real API
server, real memory that both share; in the kubelets' place stands their end of the API."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cleaning import remove_all
from fake_kubelet import Kubelet, Pod

import gismo_core

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
POOL = "rack9"
NODES = ("node-a", "node-b")
_WAIT_S = 60.0


class Cluster:
    """An operator and the agents of two nodes, on one memory."""

    def __init__(self, client: Any, kubeconfig: Path, folder: Path) -> None:
        own = "gismo.io/v1alpha1"
        self.pools = client.resources.get(api_version=own, kind="GismoPool")
        self.ranges = client.resources.get(api_version=own, kind="GismoNamespace")
        self.nodes = client.resources.get(api_version=own, kind="GismoNode")
        self.cluster = client.resources.get(api_version="v1", kind="Node")
        self.leases = client.resources.get(api_version="coordination.k8s.io/v1", kind="Lease")
        self.folder = folder
        self.memory = folder / "memory"
        self.memory.mkdir()
        self.kubelets = {}
        for node in NODES:
            (folder / node).mkdir()
            self.kubelets[node] = Kubelet(folder / node)
        self._kubeconfig = kubeconfig
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """The operator, or the agent of a node."""
        if name == "operator":
            where, command = "operator", ["-m", "gismo_operator"]
        else:
            where, command = "deviceplugin", ["-m", "gismo_deviceplugin", "--node", name]
            command += ["--device-plugins", str(self.folder / name)]
            command += ["--pod-resources", str(self.kubelets[name].pod_resources)]
            command += ["--state", str(self.folder / f"{name}-state"), "--runtime", str(self.folder / "runtime")]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *command, "--kubeconfig", str(self._kubeconfig)],
                cwd=ROOT / where, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def apply(self, *namespaces: dict[str, Any]) -> None:
        body = {
            "apiVersion": "gismo.io/v1alpha1",
            "kind": "GismoPool",
            "metadata": {"name": POOL},
            "spec": {
                "source": {"emulated": {"capacity": "256Mi", "directory": str(self.memory)}},
                "nodeSelector": {"pool": POOL},
                "namespaces": list(namespaces),
            },
        }
        self.pools.server_side_apply(body=body, name=POOL, field_manager="kubectl")

    def condition(self, name: str) -> tuple[str, str, str] | None:
        for one in self.pools.get(name=POOL).to_dict().get("status", {}).get("conditions", []):
            if one["type"] == name:
                return one["status"], one["reason"], one.get("message", "")
        return None

    def describe(self) -> str:
        objects = [
            one.to_dict() for one in (*self.nodes.get().items, *self.ranges.get().items, *self.pools.get().items)
        ]
        logs = "\n".join(f"--- {name}\n{self.log(name)[-3000:]}" for name in self.processes)
        return "\n".join(str({key: one.get(key) for key in ("kind", "spec", "status")}) for one in objects) + logs

    async def eventually(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + _WAIT_S
        while not what():
            assert time.monotonic() < end, self.describe()
            await asyncio.sleep(0.05)

    async def ready(self) -> None:
        """On both nodes: one alone may be before the other's agent has started."""

        def seen() -> bool:
            on = (self.pools.get(name=POOL).to_dict().get("status") or {}).get("nodesReady")
            return (self.condition("Ready") or ("",))[0] == "True" and on == f"{len(NODES)}/{len(NODES)}"

        await self.eventually(seen)

    async def offered(self, node: str, resource: str) -> None:
        def seen() -> bool:
            one = self.kubelets[node].endpoints.get(resource)
            return one is not None and set(one.devices.values()) == {"Healthy"}

        await self.eventually(seen)

    def open(self, node: str, pod: Pod) -> gismo_core.Store:
        """As the container does: with the paths of the answer to Allocate, as the node has them."""
        paths = {mount.container_path: mount.host_path for mount in pod.answer.mounts}
        store = paths[pod.answer.envs["GISMO_STORE"].removeprefix("file:")]
        state = paths[pod.answer.envs["GISMO_STATE_DIR"]]
        assert Path(state).is_relative_to(self.folder / f"{node}-state")
        from gismo_core import node_marker

        marker = node_marker.read(Path(state) / "node.json")
        return gismo_core.open(store, state_dir=state, host_id=marker.host_id)

    def run(self, pod: Pod, code: str) -> str:
        """Run it as the container would: a plain Python that has no Gismo, the answer's environment, its paths as the node has
        them; from another folder, since this checkout is no part of an image."""
        envs = dict(pod.answer.envs)
        for mount in pod.answer.mounts:
            envs = {name: value.replace(mount.container_path, mount.host_path) for name, value in envs.items()}
        python = getattr(sys, "_base_executable", sys.executable)
        done = subprocess.run(
            [python, "-c", code], env={**envs, "PATH": os.environ["PATH"]}, cwd="/", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for name, process in self.processes.items():
            assert process.wait(30) in (0, -signal.SIGKILL), self.log(name)
            assert "Traceback" not in self.log(name), self.log(name)


@pytest.fixture
def world(client: Any, control_plane: Any) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="gismo-c-", dir="/dev/shm") as folder:
        made = Cluster(client, control_plane.kubeconfig(), Path(folder))
        for name in NODES:
            body: dict[str, Any] = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": {"pool": POOL}},
            }
            made.cluster.create(body=body)
            boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            status = {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"bootID": boot_id}}
            body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}
            made.cluster.status.patch(name=name, body=body, content_type="application/merge-patch+json")
        try:
            yield made
            made.end()
        finally:
            for process in made.processes.values():
                if process.poll() is None:
                    process.kill()
                    process.wait()
            remove_all(made.pools, made.ranges, made.nodes, made.cluster)
            for one in made.leases.get(namespace="default").items:
                made.leases.delete(name=one.metadata.name, namespace="default")


def played(world: Cluster, story: Callable[[], Awaitable[None]]) -> None:
    async def play() -> None:
        for kubelet in world.kubelets.values():
            await kubelet.start()
        for name in ("operator", *NODES):
            world.start(name)
        try:
            await story()
        finally:
            for kubelet in world.kubelets.values():
                await kubelet.stop()

    asyncio.run(play())


TEAM_A = {"name": "team-a", "size": "64Mi", "access": {"kubernetesNamespaces": ["team-a"]}}
TEAM_B = {"name": "team-b", "size": "32Mi", "access": {"kubernetesNamespaces": ["team-b"]}}
RESOURCE_A, RESOURCE_B = f"gismo.io/{POOL}.team-a", f"gismo.io/{POOL}.team-b"


def test_what_is_made_on_one_node_is_read_on_the_other_where_it_lies(world: Cluster) -> None:
    async def story() -> None:
        world.apply(TEAM_A, TEAM_B)
        await world.ready()
        assert world.condition("Degraded") is not None
        assert (world.condition("Degraded") or ("",))[0] == "False"
        pods = {}
        for node in NODES:
            await world.offered(node, RESOURCE_A)
            pods[node] = await world.kubelets[node].run_pod("team-a", f"ray-on-{node}", RESOURCE_A)
        with world.open("node-a", pods["node-a"]) as here, world.open("node-b", pods["node-b"]) as there:
            assert {here.host_id, there.host_id} == {0, 1}
            handle = here.put(b"x" * 100_000)
            assert bytes(there.get(handle).data[:3]) == b"xxx"
        made = world.run(pods["node-a"], "import gismo_core as g; s = g.open(); print(s.put(b'from a'))")
        read = f"import gismo_core as g; s = g.open(); print(bytes(s.get(g.Handle.parse({made!r})).data))"
        assert world.run(pods["node-b"], read) == "b'from a'"
        with pytest.raises(grpc.aio.AioRpcError, match="add team-b to access"):
            await world.kubelets["node-a"].run_pod("team-b", "stranger", RESOURCE_A)

    played(world, story)


def test_a_namespace_in_use_waits_and_says_for_whom(world: Cluster) -> None:
    async def story() -> None:
        world.apply(TEAM_A, TEAM_B)
        await world.ready()
        await world.offered("node-b", RESOURCE_A)
        pod = await world.kubelets["node-b"].run_pod("team-a", "ray-head", RESOURCE_A)
        store = pod.answer.envs["GISMO_STORE"].rpartition("/")[2]
        world.apply(TEAM_B)
        await world.eventually(lambda: "team-a/ray-head on node-b" in (world.condition("Progressing") or ("",) * 3)[2])
        await world.eventually(lambda: world.kubelets["node-b"].endpoints[RESOURCE_A].ended)
        await asyncio.sleep(12)  # longer than a share may be hidden
        assert (world.memory / store).exists()
        world.kubelets["node-b"].pods.clear()
        await world.eventually(lambda: not (world.memory / store).exists())
        await world.eventually(lambda: [one.spec.namespace for one in world.ranges.get().items] == ["team-b"])
        await world.eventually(lambda: (world.condition("Progressing") or ("",))[0] == "False")
        await world.ready()

    played(world, story)


def test_agents_that_are_killed_and_a_kubelet_that_starts_anew(world: Cluster) -> None:
    async def story() -> None:
        world.apply(TEAM_A)
        await world.ready()
        await world.offered("node-a", RESOURCE_A)
        kubelet = world.kubelets["node-a"]
        pod = await kubelet.run_pod("team-a", "ray-head", RESOURCE_A)
        with world.open("node-a", pod) as store:
            handle = store.put(b"kept")
            for round_ in range(3):
                world.kill("node-a")
                await world.eventually(lambda: kubelet.endpoints[RESOURCE_A].ended)
                if round_ == 1:
                    await kubelet.stop()
                    await kubelet.start()
                world.start("node-a")
                await world.eventually(
                    lambda: not kubelet.endpoints.get(RESOURCE_A) or not kubelet.endpoints[RESOURCE_A].ended
                )
                await world.offered("node-a", RESOURCE_A)
                other = await kubelet.run_pod("team-a", f"ray-{round_}", RESOURCE_A)
                assert other.answer == pod.answer, "an answer that is replayed stays true"
                await kubelet.endpoints[RESOURCE_A].pre_start(pod.share)  # its container starts again
            assert bytes(store.get(handle).data) == b"kept"
        await world.ready()
        assert len({one.share for one in kubelet.pods}) == len(kubelet.pods) == 4

    played(world, story)


def test_memory_that_is_not_the_same_is_not_offered(world: Cluster) -> None:
    async def story() -> None:
        os.rename(world.memory, world.folder / "elsewhere")
        world.apply(TEAM_A)
        await world.eventually(
            lambda: (world.condition("Degraded") or ("",))[0] == "True" or bool(world.nodes.get().items)
        )
        await world.eventually(
            lambda: any(
                "mount one tmpfs there" in str(one.to_dict().get("status", {}).get("failures"))
                for one in world.nodes.get().items
            )
        )
        assert (world.condition("Ready") or ("",))[0] != "True"
        assert not any(kubelet.endpoints for kubelet in world.kubelets.values())
        os.rename(world.folder / "elsewhere", world.memory)
        await world.ready()

    played(world, story)
