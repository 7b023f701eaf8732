"""helm install, GismoPool Ready, RayCluster of an unmodified image Ready, and what is made on one node is read on the other."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import binaries
import pytest
from chart import NAMESPACE, RELEASE

from e2e import cluster, gismo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROAD = Path(__file__).with_name("road.py")
STORE_RESOURCE = "gismo.io/rack1.team-a"
_READY_S = 180
_NETWORK_BYTES = 256 << 10


def eventually(what: Callable[[], bool], within_s: float = _READY_S) -> None:
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end, gismo.describe()
        time.sleep(0.5)


def get(*what: str) -> Any:
    return json.loads(cluster.kubectl("get", *what, "--output=json"))


def refused(*arguments: str, stdin: str | None = None) -> str:
    with pytest.raises(cluster.ClusterFailed) as error:
        cluster.kubectl(*arguments, stdin=stdin)
    return str(error.value)


@pytest.fixture(scope="module")
def pool() -> Iterator[str]:
    """The pool of examples/emulated, Ready; afterwards it is deleted, and its memory is free."""
    gismo.install()
    cluster.kubectl("apply", "--filename=-", stdin=gismo.example("emulated/gismopool.yaml"))
    try:
        cluster.kubectl("wait", "--for=condition=Ready", "gismopool/rack1", f"--timeout={_READY_S}s")
    except cluster.ClusterFailed:
        print(gismo.describe())
        raise
    yield "rack1"
    eventually(lambda: "is in use" not in _delete_pool())
    eventually(lambda: not get("gismonamespaces")["items"])
    assert not [path for path in cluster.shared().iterdir() if path.name != "label"]


def _delete_pool() -> str:
    try:
        return cluster.kubectl("delete", "gismopool/rack1", "--ignore-not-found")
    except cluster.ClusterFailed as error:
        return str(error)


def ray_ready() -> None:
    """Head and both workers: each with its node."""

    def seen() -> bool:
        pods = get("pods", "--namespace=default", "--selector=ray.io/cluster=raycluster")["items"]
        up = [
            one
            for one in pods
            if "deletionTimestamp" not in one["metadata"]
            and any(
                each["type"] == "Ready" and each["status"] == "True" for each in one["status"].get("conditions", [])
            )
        ]
        return len(up) == len(pods) == 3

    eventually(seen)


@pytest.fixture(scope="module")
def ray(pool: str) -> Iterator[Callable[..., Any]]:
    """Runs road.py at the RayCluster of examples/emulated, with these arguments."""
    cluster.kubectl("apply", "--filename=-", stdin=gismo.example("emulated/raycluster.yaml"))
    ray_ready()

    def run(*arguments: str) -> Any:
        head = cluster.kubectl("get", "pods", "--selector=ray.io/node-type=head", "--output=name").split()[0]
        command = [str(binaries.ensure("kubectl")), f"--kubeconfig={cluster.kubeconfig()}"]
        command += ["exec", "--stdin", head, "--", "python3", "-", *arguments]
        done = subprocess.run(command, input=ROAD.read_text(), capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:] + gismo.describe()
        return json.loads(done.stdout.splitlines()[-1])

    yield run
    cluster.kubectl("delete", "raycluster/raycluster", "--wait")
    eventually(lambda: not get("pods", "--namespace=default", "--selector=ray.io/cluster=raycluster")["items"])


def check(said: Any) -> None:
    """Every round: the same store, the same offset, read-only, and nothing over the network."""
    assert len(set(said["nodes"])) == 2
    for one in said["rounds"]:
        assert one["place"] == one["made"]
        assert one["place"][0].startswith("/dev/gismo/")
        assert not one["writable"]
        assert one["received"] - one["idle"] < _NETWORK_BYTES, one


def test_an_array_is_read_on_another_node_where_it_lies(ray: Callable[..., Any]) -> None:
    check(ray(str(1 << 28), "5"))


def test_each_container_with_a_share_is_accounted_for(ray: Callable[..., Any]) -> None:
    def who() -> str:
        conditions = get("gismonamespace/rack1.team-a")["status"]["conditions"]
        return str(next(one for one in conditions if one["type"] == "InUse"))

    eventually(lambda: who().count("default/raycluster-") == 3 and "'True'" in who(), within_s=30)


def test_what_is_in_use_is_not_deleted(ray: Callable[..., Any]) -> None:
    for what in ("gismopool/rack1", "gismonamespace/rack1.team-a"):
        said = refused("delete", what)
        assert "is in use" in said
        assert "default/raycluster-" in said


def test_a_pod_of_another_namespace_gets_no_share(pool: str, namespace: str) -> None:
    limits = {STORE_RESOURCE: 1}
    container = {"name": "main", "image": "none", "resources": {"limits": limits}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger"}, "spec": {"containers": [container]}}
    said = refused("create", f"--namespace={namespace}", "--filename=-", stdin=json.dumps(pod))
    assert f"add {namespace} to access.kubernetesNamespaces" in said


def test_a_worker_that_is_killed_comes_back(ray: Callable[..., Any]) -> None:
    workers = cluster.kubectl("get", "pods", "--selector=ray.io/node-type=worker", "--output=name").split()
    cluster.kubectl("delete", workers[0], "--force", "--grace-period=0")
    ray_ready()
    eventually(lambda: workers[0] not in cluster.kubectl("get", "pods", "--output=name"))
    check(ray(str(1 << 26), "3"))


def test_agents_that_are_killed_under_running_pods(ray: Callable[..., Any]) -> None:
    for _ in range(2):
        for node in (one for one in cluster.nodes() if one.worker):
            cluster.kill(node, "python3 -m gismo_deviceplugin")
        check(ray(str(1 << 26), "1"))
    namespace = f"--namespace={NAMESPACE}"
    cluster.kubectl(namespace, "rollout", "status", f"daemonset/{RELEASE}-agent", f"--timeout={_READY_S}s")
    workers = cluster.kubectl("get", "pods", "--selector=ray.io/node-type=worker", "--output=name").split()
    cluster.kubectl("delete", workers[0], "--force", "--grace-period=0")  # its follower needs a share of the new agent
    ray_ready()
    check(ray(str(1 << 26), "1"))
