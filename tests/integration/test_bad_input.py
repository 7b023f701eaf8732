"""What is taken and cannot be: each row of two tables of docs/bad-input.md, with an operator and the agents of two nodes.

All the wrong pools are there at a time, on the same nodes; so none keeps another from being said, nor a good one from being
ready. A pool's directory is another on each node, or the same: its path goes through /proc/self/cwd, and each agent has
another working directory. (A node of a real cluster has another mount at the same path.)
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import bad_input
import grpc
import pytest
from apiserver import ControlPlane
from bad_input import Row
from resources import OWN
from two_nodes import NODES, POOL, Cluster, two_nodes

pytestmark = pytest.mark.integration

_WAIT_S = 60.0
_PATIENCE_S = 2.0
GOOD = "gismo.io/good.team-a"


def tenant(name: str, size: str = "64Mi", **more: Any) -> dict[str, Any]:
    return {"name": name, "size": size, "access": {"kubernetesNamespaces": ["team-a"]}, **more}


def named(case: str) -> str:
    """The pool of a case."""
    return case.lower().replace(" ", "-")


class Rack:
    """The cluster, and the directories of its nodes."""

    def __init__(self, world: Cluster, loop: asyncio.AbstractEventLoop) -> None:
        self.world = world
        self._loop = loop
        self.roots = {node: world.folder / f"{node}-root" for node in NODES}
        self.directories: dict[str, str] = {}  # by case
        for root in self.roots.values():
            root.mkdir()

    def wait(self, what: Coroutine[Any, Any, Any]) -> Any:
        """Of the kubelets, which live in a loop of their own."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(_WAIT_S)

    def memory(self, case: str, *nodes: str) -> Path:
        """One directory for these nodes."""
        made = self.world.folder / "-".join((named(case), *nodes)) / "memory"
        made.mkdir(parents=True)
        for node in nodes:
            (self.roots[node] / named(case)).symlink_to(made.parent)
        return made

    def apply(
        self, case: str, *namespaces: dict[str, Any], directory: str = "", capacity: str = "256Mi", **spec: Any
    ) -> None:
        self.directories[case] = directory or f"/proc/self/cwd/{named(case)}/memory"
        emulated = {"capacity": capacity, "directory": self.directories[case]}
        body = {
            "apiVersion": OWN,
            "kind": "GismoPool",
            "metadata": {"name": named(case)},
            "spec": {
                "source": {"emulated": emulated},
                "nodeSelector": {"pool": POOL},
                "namespaces": list(namespaces),
                **spec,
            },
        }
        self.world.pools.server_side_apply(body=body, name=named(case), field_manager="kubectl", force_conflicts=True)

    def condition(self, kind: str, name: str, condition: str) -> tuple[str, str, str]:
        from kubernetes.dynamic.exceptions import NotFoundError

        resources = {"GismoPool": self.world.pools, "GismoNamespace": self.world.ranges, "GismoNode": self.world.nodes}
        try:
            status = resources[kind].get(name=name).to_dict().get("status") or {}
        except NotFoundError:
            status = {}
        found = [one for one in status.get("conditions", []) if one["type"] == condition]
        return (found[0]["status"], found[0]["reason"], found[0]["message"]) if found else ("", "", "")

    def eventually(self, what: Callable[[], bool], why: Callable[[], object] = lambda: "") -> None:
        end = time.monotonic() + _WAIT_S
        while not what():
            assert time.monotonic() < end, f"{why()}\n{self.world.describe()}"
            time.sleep(0.1)

    def has_agents(self) -> bool:
        nodes = [self.world.cluster.get(name=node).to_dict() for node in NODES]
        return all("gismo.io/regions" in node["metadata"].get("annotations", {}) for node in nodes)

    def ready(self, case: str) -> None:
        self.eventually(lambda: self.condition("GismoPool", named(case), "Ready")[2] == "on 2 nodes")


def everything_wrong(rack: Rack) -> None:
    """One pool for each row, and a good one."""
    for case in ("good", "selectors that overlap", "on one memory"):
        rack.memory(case, *NODES)
        rack.apply(case, tenant("team-a"))
    rack.apply("no node", tenant("team-a"), nodeSelector={"pool": "nowhere"})
    rack.apply("no directory", tenant("team-a"))
    rack.apply("directory on a disk", tenant("team-a"), directory="/etc")
    (rack.memory("directory of others", *NODES) / "theirs").touch()
    rack.apply("directory of others", tenant("team-a"))
    for node in NODES:
        rack.memory("directory not shared", node)
    rack.apply("directory not shared", tenant("team-a"))
    rack.memory("more memory than the nodes have", *NODES)
    rack.apply("more memory than the nodes have", tenant("team-a", "32Ti"), capacity="64Ti")
    original = rack.memory("a clone with the right UUID", "node-a")
    rack.apply("a clone with the right UUID", tenant("team-a"))
    retained = ("no gap", "another size under a retained name")
    for case in retained:
        rack.memory(case, *NODES)
        rack.apply(case, tenant("team-b", reclaimPolicy="Retain"), capacity="96Mi")
    for case in retained:
        rack.ready(case)
        rack.apply(case, capacity="96Mi")
    for case, wanted in zip(retained, (tenant("team-c"), tenant("team-b", "32Mi")), strict=True):
        name = f"{named(case)}.team-b"
        rack.eventually(lambda name=name: rack.world.ranges.get(name=name).spec.state == "Retained")  # type: ignore[misc]
        rack.apply(case, wanted, capacity="96Mi")
    rack.ready("on one memory")
    rack.apply("two pools on one memory", tenant("team-a"), directory=rack.directories["on one memory"])
    rack.eventually(lambda: len(list(original.iterdir())) == 2)  # the label and a store
    shutil.copytree(original, rack.memory("a clone with the right UUID", "node-b"), dirs_exist_ok=True)


@pytest.fixture(scope="module")
def rack(installed: Any, control_plane: ControlPlane) -> Iterator[Rack]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="kubelets")
    thread.start()
    try:
        with two_nodes(installed, control_plane) as world:
            made = Rack(world, loop)
            for kubelet in world.kubelets.values():
                made.wait(kubelet.start())
            world.start("operator")
            for node in NODES:
                world.start(node, "--patience", str(_PATIENCE_S), cwd=made.roots[node])
            made.eventually(made.has_agents)  # else the one that is known first would be the writer
            everything_wrong(made)
            yield made
            for kubelet in world.kubelets.values():
                made.wait(kubelet.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize("row", bad_input.rows("conditions"), ids=lambda row: row["wrong"])
def test_what_gets_a_condition(rack: Rack, row: Row) -> None:
    """docs/bad-input.md: that object has that condition, in these words."""
    case, (kind, _, node) = row["wrong"], row["object"].partition(" ")
    name = {"GismoNode": f"{named(case)}.{node}", "GismoNamespace": f"{named(case)}.team-a"}.get(kind, named(case))
    condition, _, status = row["condition"].partition("=")
    wanted = row["says"].replace("DIR", rack.directories[case])

    def seen() -> bool:
        said = rack.condition(kind, name, condition)
        return said[:2] == (status, row["reason"]) and bad_input.says(said[2], wanted)

    rack.eventually(seen, lambda: f"{rack.condition(kind, name, condition)} is not\n{(status, row['reason'], wanted)}")


def test_what_is_wrong_is_told_and_what_is_good_goes_on(rack: Rack) -> None:
    """After all of them: the good pools are ready, and offered, and nothing of the wrong ones is."""
    for case in ("good", "on one memory", "selectors that overlap"):
        assert rack.condition("GismoPool", named(case), "Ready")[0] == "True"
    for node in NODES:
        offered = set(rack.world.kubelets[node].endpoints)
        assert {GOOD, "gismo.io/on-one-memory.team-a", "gismo.io/selectors-that-overlap.team-a"} <= offered
        for case in ("two pools on one memory", "directory of others", "more memory than the nodes have"):
            assert f"gismo.io/{named(case)}.team-a" not in offered
    # Where one node sees another memory, that node offers nothing, and the one that made it does.
    for case in ("directory not shared", "a clone with the right UUID"):
        resource = f"gismo.io/{named(case)}.team-a"
        assert resource not in rack.world.kubelets["node-b"].endpoints
        rack.eventually(lambda resource=resource: resource in rack.world.kubelets["node-a"].endpoints)  # type: ignore[misc]
    told = {(about, reason): note for about, kind, reason, note, _ in rack.world.told() if kind == "Warning"}
    for row in bad_input.rows("conditions"):
        if row["object"] == "GismoPool" and row["reason"] != "Ready":
            assert told[f"GismoPool {named(row['wrong'])}", row["reason"]]


@pytest.mark.parametrize("row", bad_input.rows("refused containers"), ids=lambda row: row["wrong"])
def test_what_is_refused_when_a_container_starts(rack: Rack, row: Row) -> None:
    """docs/bad-input.md: the kubelet is told so, and tells it in the pod's events."""
    kubelet = rack.world.kubelets["node-a"]
    rack.eventually(lambda: GOOD in kubelet.endpoints and bool(kubelet.endpoints[GOOD].devices))
    endpoint = kubelet.endpoints[GOOD]
    one, other, *_ = endpoint.devices
    asked: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "a pod of another Kubernetes namespace": lambda: kubelet.run_pod("team-b", "stranger", GOOD),
        "two shares": lambda: endpoint.allocate(one, other),
        "an init container": lambda: endpoint.pre_start(one),  # which the kubelet does not list
        "a share of a store that is gone": lambda: endpoint.pre_start("00000000-0000-4000-8000-000000000000_0"),
    }
    with pytest.raises(grpc.aio.AioRpcError) as error:
        rack.wait(asked[row["wrong"]]())
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.value.details() == row["says"]
