"""A node that is frozen and thaws, and one that is started anew: fenced, and back, with what it had made; `make e2e-long`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e import cluster, engine, gismo, road
from e2e.pods import Pods
from e2e.test_scenarios import namespace_of, second, share  # noqa: F401 - a fixture
from e2e.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

_POOL = "rack2"
_NAME = "team-s"
_RESOURCE = f"gismo.io/{_POOL}.{_NAME}"
_SILENCE_S = 180  # a minute until the cluster notices
# Says each call's outcome, until it is fenced; then it holds what it has.
_WORK = """
import time, gismo_core
store = gismo_core.open()
store.put(b"gismo-e2e-secret" * (1 << 16), name="kept")
draft = store.create(1 << 20)
print("begun", flush=True)
while True:
    try:
        store.delete(store.put(b"more"))
    except gismo_core.Fenced:
        print("Fenced", flush=True)
        break
    time.sleep(0.2)
time.sleep(3600)
"""


def gnode(node: cluster.Node) -> dict[str, Any]:
    found = cluster.items("gismonodes")
    return next(one for one in found if (one["spec"]["pool"], one["spec"]["node"]) == (_POOL, node.name))


def failures(node: cluster.Node) -> set[str]:
    return {one["reason"] for one in gnode(node)["status"].get("failures", [])}


def until_offered(node: cluster.Node) -> None:
    """Pods of the node get shares again."""

    def seen() -> bool:
        there = {one["metadata"]["name"]: one for one in cluster.items("nodes")}[node.name]
        return int(there["status"]["allocatable"].get(_RESOURCE, 0)) > 0

    until(seen, within_s=_SILENCE_S, why=gismo.describe)


@pytest.fixture
def working(second: Any, pods: Pods, workers: list[cluster.Node]) -> Iterator[tuple[cluster.Node, cluster.Node, str]]:  # noqa: F811
    """The other node, the one that works, and the pod that does."""
    second(namespace_of(_NAME, "Delete", pods.namespace))
    here, there = workers
    until_offered(here)
    until_offered(there)
    pod = pods.run(there.name, ["python3", "-c", _WORK], wait_for="Running", resource=_RESOURCE)
    until(lambda: "begun" in pods.logs(pod))
    yield here, there, pod
    cluster.kubectl("delete", f"--namespace={pods.namespace}", "pods", "--all", "--force", "--grace-period=0")


def test_a_node_that_was_frozen_comes_back(working: tuple[cluster.Node, cluster.Node, str], pods: Pods) -> None:
    here, there, pod = working
    engine.docker("pause", there.name)
    try:
        until(lambda: gnode(there)["spec"]["standing"] == "Fenced", within_s=_SILENCE_S, why=gismo.describe)
        assert share(pods, here, _NAME, "share_script.py", "get", "kept")["kept"] is True
        (said,) = gnode(here)["status"]["silent"]
        assert (said["node"], said["active"], said["fenced"]) == (there.name, 0, 1)
    finally:
        engine.docker("unpause", there.name)
    cluster.settle()
    until(lambda: "Fenced" in pods.logs(pod), within_s=_SILENCE_S)
    until(lambda: "Fenced" in failures(there), within_s=_SILENCE_S, why=gismo.describe)
    cluster.kubectl("delete", f"--namespace={pods.namespace}", f"pod/{pod}", "--force", "--grace-period=0")
    until(
        lambda: gnode(there)["spec"]["standing"] == "Active" and not failures(there),
        within_s=_SILENCE_S,
        why=gismo.describe,
    )
    until_offered(there)
    assert share(pods, there, _NAME, "share_script.py", "get", "kept")["kept"] is True
    assert share(pods, there, _NAME, "share_script.py", "put", "after")["store"]
    assert share(pods, here, _NAME, "share_script.py", "get", "after")["kept"] is True


def test_a_node_that_is_started_anew_has_its_place_again(
    working: tuple[cluster.Node, cluster.Node, str], pods: Pods
) -> None:
    here, there, _ = working
    host_id = gnode(there)["spec"]["hostId"]
    engine.docker("restart", "--time=1", there.name)
    cluster.settle()
    until(
        lambda: gnode(there)["status"].get("ready") == 1 and not failures(there),
        within_s=_SILENCE_S,
        why=gismo.describe,
    )
    until_offered(there)
    assert gnode(there)["spec"]["hostId"] == host_id
    assert share(pods, there, _NAME, "share_script.py", "get", "kept")["kept"] is True
    assert share(pods, there, _NAME, "share_script.py", "put", "after")["store"]
    assert share(pods, here, _NAME, "share_script.py", "get", "after")["kept"] is True
    if road.pods(road.WITH_GISMO):
        road.until_ready(road.WITH_GISMO)
