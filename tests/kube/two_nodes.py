"""The operator and the agents of two nodes as real processes under the chart's own accounts, a real API server, and memory
that both nodes share; in the kubelets' place stands their end of the API."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import accounts
import chart
from apiserver import ControlPlane
from cleaning import remove_all
from fake_kubelet import Kubelet, Pod
from prometheus_client.parser import text_string_to_metric_families
from resources import OWN, Resources

import gismo_core
import ports

ROOT = Path(__file__).resolve().parents[2]
DAX_AGENT = Path(__file__).with_name("dax_agent.py")
POOL = "rack9"
NODES = ("node-a", "node-b")
_WAIT_S = 60.0
_END_S = 30.0
PYTHON = getattr(sys, "_base_executable", sys.executable)  # a plain one, that has no Gismo


def environment(pod: Pod) -> dict[str, str]:
    """Of a container with a share: the answer's, its paths as the node has them."""
    envs = dict(pod.answer.envs)
    for mount in pod.answer.mounts:
        envs = {name: value.replace(mount.container_path, mount.host_path) for name, value in envs.items()}
    return {**envs, "PATH": os.environ["PATH"]}


class Cluster(Resources):
    """An operator and the agents of two nodes, on one memory."""

    def __init__(self, client: Any, folder: Path) -> None:
        super().__init__(client)
        self.folder = folder
        self.memory = folder / "memory"
        self.memory.mkdir()
        self.kubelets = {}
        for node in NODES:
            (folder / node).mkdir()
            self.kubelets[node] = Kubelet(folder / node)
        self.kubeconfigs: dict[str, Path] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}

    def start(self, name: str, *more: str, program: str = "", cwd: Path | None = None) -> None:
        """The operator (another one: any name that begins so), or the agent of a node. program: Python in the module's place."""
        self.ports[name] = ports.free(1)[0]
        if name.startswith("operator"):
            where, command = "operator", ["-m", "gismo_operator", "--namespace", chart.NAMESPACE]
        else:
            where, command = "deviceplugin", [*self.agent(name), "--node", name]
            command += ["--device-plugins", str(self.folder / name)]
            command += ["--pod-resources", str(self.kubelets[name].pod_resources)]
            command += ["--state", str(self.folder / f"{name}-state"), "--runtime", str(self.folder / "runtime")]
        if program:
            command[:2] = ["-c", program]
        command += ["--kubeconfig", str(self.kubeconfigs[name.partition("-again")[0]])]
        command += ["--listen", f"127.0.0.1:{self.ports[name]}", *more]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *command],
                cwd=cwd or ROOT / where, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONFAULTHANDLER": "1"},  # see end()
            )  # fmt: skip

    def ask(self, name: str, path: str) -> tuple[int, str]:
        """By HTTP: code and text; (0, why) where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}{path}", timeout=3) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metrics(self, name: str) -> dict[str, float]:
        """Of that process, as `name{label="value",…}` → value."""
        code, text = self.ask(name, "/metrics")
        assert code == 200, text
        return {
            f"{sample.name}{{{','.join(f'{key}={value}' for key, value in sorted(sample.labels.items()))}}}": sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def told(self, kind: str | None = None) -> list[tuple[str, str, str, str, int]]:
        """Events about our objects: kind and name, type, reason, note, how often."""
        found = []
        for one in self.events.get(namespace="default").items:
            if one.regarding.apiVersion == OWN and kind in (None, one.regarding.kind):
                about = f"{one.regarding.kind} {one.regarding.name}"
                found.append((about, one.type, one.reason, one.note, one.series.count if one.series else 1))
        return found

    def agent(self, name: str) -> list[str]:
        """How Python is told to be the agent of a node."""
        return ["-m", "gismo_deviceplugin"]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def apply(self, *namespaces: dict[str, Any]) -> None:
        self.apply_pool(POOL, {"capacity": "256Mi", "directory": str(self.memory)}, *namespaces)

    def condition(self, name: str, pool: str = POOL) -> tuple[str, str, str] | None:
        for one in self.pools.get(name=pool).to_dict().get("status", {}).get("conditions", []):
            if one["type"] == name:
                return one["status"], one["reason"], one.get("message", "")
        return None

    def quarantined(self) -> list[dict[str, Any]]:
        """What the nodes say of bytes that are kept from use."""
        return [one for node in self.nodes.get().items for one in node.to_dict()["status"].get("quarantined", [])]

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
        """On both nodes: one alone may be before the other's agent has started. About the spec as it is now: what was
        said of the one before may be there for a while, as `kubectl wait` knows too."""

        def seen() -> bool:
            pool = self.pools.get(name=POOL).to_dict()
            said = pool.get("status") or {}
            return (
                (self.condition("Ready") or ("",))[0] == "True"
                and said.get("observedGeneration") == pool["metadata"]["generation"]
                and said.get("nodesReady") == f"{len(NODES)}/{len(NODES)}"
            )

        await self.eventually(seen)

    async def offered(self, node: str, resource: str) -> None:
        def seen() -> bool:
            one = self.kubelets[node].endpoints.get(resource)
            return one is not None and set(one.devices.values()) == {"Healthy"}

        await self.eventually(seen)

    def open(self, node: str, pod: Pod) -> gismo_core.Store:
        """As the container does: with the paths of the answer to Allocate, as the node has them."""
        paths = {one.container_path: one.host_path for one in (*pod.answer.mounts, *pod.answer.devices)}
        store = paths[pod.answer.envs["GISMO_STORE"].partition(":")[2]]
        state = paths[pod.answer.envs["GISMO_STATE_DIR"]]
        assert Path(state).is_relative_to(self.folder / f"{node}-state")
        from gismo_core import node_marker

        marker = node_marker.read(Path(state) / "node.json")
        return gismo_core.open(store, state_dir=state, host_id=marker.host_id)

    def run(self, pod: Pod, code: str) -> str:
        """Run it as the container would: a plain Python that has no Gismo, the answer's environment, its paths as the node has
        them; from another folder, since this checkout is no part of an image."""
        done = subprocess.run([PYTHON, "-c", code], env=environment(pod), cwd="/", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for name, process in self.processes.items():
            try:
                code = process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # where each of its threads is stands in the log then
                process.wait(_END_S)
                raise AssertionError(f"{name} did not end within {_END_S:g} s of SIGTERM:\n{self.log(name)}") from None
            assert code in (0, -signal.SIGKILL), self.log(name)
            assert "Traceback" not in self.log(name), self.log(name)


class DaxCluster(Cluster):
    """As Cluster, with CXL memory: each node has a kernel of the tests (dax_agent.py), with these regions."""

    regions: tuple[str, ...] = ()  # as dax_agent.py takes them

    def agent(self, name: str) -> list[str]:
        folder = self.folder / f"{name}-host"
        regions = [f"--region={one}" for one in self.regions]
        return [str(DAX_AGENT), f"--memory={self.memory}", f"--host={folder}", *regions]


@contextmanager
def two_nodes(client: Any, control_plane: ControlPlane, kind: type[Cluster] = Cluster) -> Iterator[Cluster]:
    """Nothing of it is left afterwards; nothing runs until start()."""
    with tempfile.TemporaryDirectory(prefix="gismo-c-", dir="/dev/shm") as folder:
        made = kind(client, Path(folder))
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
            made.kubeconfigs[name] = accounts.kubeconfig(control_plane, client, accounts.AGENT, name)
        made.kubeconfigs["operator"] = accounts.kubeconfig(control_plane, client, accounts.OPERATOR)
        try:
            yield made
            made.end()
        finally:
            for process in made.processes.values():
                if process.poll() is None:
                    process.kill()
                    process.wait()
            pods = client.resources.get(api_version="v1", kind="Pod")
            for one in pods.get(namespace=chart.NAMESPACE).items:
                pods.delete(name=one.metadata.name, namespace=chart.NAMESPACE, body={"gracePeriodSeconds": 0})
            remove_all(made.pools, made.ranges, made.nodes, made.cluster)
            for one in made.leases.get(namespace=chart.NAMESPACE).items:
                made.leases.delete(name=one.metadata.name, namespace=chart.NAMESPACE)
            made.events.delete(namespace="default", field_selector="reason!=")  # all


def played(world: Cluster, story: Callable[[], Awaitable[None]], **programs: str) -> None:
    """programs: what runs in the place of a process's module, by its name with _ for -."""

    async def play() -> None:
        for kubelet in world.kubelets.values():
            await kubelet.start()
        for name in ("operator", *NODES):
            world.start(name, program=programs.get(name.replace("-", "_"), ""))
        try:
            await story()
        finally:
            for kubelet in world.kubelets.values():
                await kubelet.stop()

    asyncio.run(play())
