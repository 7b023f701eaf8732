"""helm install, GismoPool Ready, RayCluster of an unmodified image Ready, and what is made on one node is read on the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from chart import NAMESPACE, RELEASE

from e2e import cluster, road
from e2e.waiting import READY_S, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

STORE_RESOURCE = "gismo.io/rack1.team-a"


def get(*what: str) -> Any:
    return json.loads(cluster.kubectl("get", *what, "--output=json"))


def refused(*arguments: str, stdin: str | None = None) -> str:
    with pytest.raises(cluster.ClusterFailed) as error:
        cluster.kubectl(*arguments, stdin=stdin)
    return str(error.value)


def check(said: Any) -> None:
    """Every round: the same store, the same offset, read-only, and nothing over the network."""
    assert said["rounds"]
    for one in said["rounds"]:
        assert not road.wrong(one), one


def test_an_array_is_read_on_another_node_where_it_lies(ray: Callable[[int, int], Any]) -> None:
    check(ray(1 << 28, 5))


def test_each_container_with_a_share_is_accounted_for(ray: Callable[[int, int], Any]) -> None:
    def who() -> str:
        conditions = get("gismonamespace/rack1.team-a")["status"]["conditions"]
        return str(next(one for one in conditions if one["type"] == "InUse"))

    until(lambda: who().count("default/raycluster-") == 3 and "'True'" in who(), within_s=30)


def test_what_is_in_use_is_not_deleted(ray: Callable[[int, int], Any]) -> None:
    for what in ("gismopool/rack1", "gismonamespace/rack1.team-a"):
        said = refused("delete", what)
        assert "is in use" in said
        assert "default/raycluster-" in said


def test_a_pod_of_another_namespace_gets_no_share(emulated_pool: str, namespace: str) -> None:
    limits = {STORE_RESOURCE: 1}
    container = {"name": "main", "image": "none", "resources": {"limits": limits}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger"}, "spec": {"containers": [container]}}
    said = refused("create", f"--namespace={namespace}", "--filename=-", stdin=json.dumps(pod))
    assert f"add {namespace} to access.kubernetesNamespaces" in said


def test_a_worker_that_is_killed_comes_back(ray: Callable[[int, int], Any]) -> None:
    workers = cluster.kubectl("get", "pods", "--selector=ray.io/node-type=worker", "--output=name").split()
    cluster.kubectl("delete", workers[0], "--force", "--grace-period=0")
    road.until_ready(road.WITH_GISMO)
    until(lambda: workers[0] not in cluster.kubectl("get", "pods", "--output=name"))
    check(ray(1 << 26, 3))


def test_agents_that_are_killed_under_running_pods(ray: Callable[[int, int], Any]) -> None:
    for _ in range(2):
        for node in (one for one in cluster.nodes() if one.worker):
            cluster.kill(node, "python3 -m gismo_deviceplugin")
        check(ray(1 << 26, 1))
    namespace = f"--namespace={NAMESPACE}"
    cluster.kubectl(namespace, "rollout", "status", f"daemonset/{RELEASE}-agent", f"--timeout={READY_S:.0f}s")
    workers = cluster.kubectl("get", "pods", "--selector=ray.io/node-type=worker", "--output=name").split()
    cluster.kubectl("delete", workers[0], "--force", "--grace-period=0")  # its follower needs a share of the new agent
    road.until_ready(road.WITH_GISMO)
    check(ray(1 << 26, 1))
