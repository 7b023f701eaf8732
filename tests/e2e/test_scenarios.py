"""What may happen to a cluster while work goes on, one test for each; `make e2e-long`."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import NAMESPACE, RELEASE

from e2e import cluster, gismo, road
from e2e.pods import Pods
from e2e.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

Ray = Callable[[int, int], Any]
_OPERATOR = f"deployment/{RELEASE}-operator"
_SYSTEM = f"--namespace={NAMESPACE}"
_SECOND = "rack2"
_DIRECTORY = f"{cluster.SHARED_IN_NODES}/{_SECOND}"


def check(said: Any) -> None:
    """Every round as it should be."""
    assert said["rounds"]
    for one in said["rounds"]:
        assert not road.wrong(one), one


def apply(manifest: dict[str, Any]) -> None:
    cluster.kubectl("apply", "--filename=-", stdin=json.dumps(manifest))


def ranges(pool: str) -> dict[str, dict[str, Any]]:
    """GismoNamespaces of a pool: namespace → object."""
    found = cluster.items("gismonamespaces")
    return {one["spec"]["namespace"]: one for one in found if one["spec"]["pool"] == pool}


def with_namespaces(*namespaces: dict[str, Any]) -> dict[str, Any]:
    """A second pool, with a directory of its own in the same memory."""
    return {
        "apiVersion": "gismo.io/v1alpha1",
        "kind": "GismoPool",
        "metadata": {"name": _SECOND},
        "spec": {"source": {"emulated": {"capacity": "2Gi", "directory": _DIRECTORY}}, "namespaces": [*namespaces]},
    }


@pytest.fixture
def second(emulated_pool: str) -> Iterator[Callable[..., None]]:
    """Applies the second pool with these Gismo namespaces and waits for Ready; it is gone afterwards."""
    assert emulated_pool
    folder = cluster.shared() / _SECOND
    folder.mkdir(exist_ok=True)

    def applied(*namespaces: dict[str, Any]) -> None:
        apply(with_namespaces(*namespaces))
        until(lambda: set(ranges(_SECOND)) >= {one["name"] for one in namespaces}, why=gismo.describe)
        gismo.until_ready(_SECOND)

    yield applied
    gismo.remove_pool(_SECOND)
    gismo.forget_pool(_SECOND, folder)
    folder.rmdir()


def namespace_of(name: str, policy: str, *kubernetes: str) -> dict[str, Any]:
    """An entry of spec.namespaces."""
    access = {"kubernetesNamespaces": list(kubernetes)}
    return {"name": name, "size": "64Mi", "reclaimPolicy": policy, "access": access}


def share(pods: Pods, node: cluster.Node, name: str, script: str, *arguments: str) -> Any:
    """What a script says in a container with a share of the second pool."""
    text = Path(__file__).with_name(script).read_text()
    command = ["python3", "-c", text, *arguments]
    pod = pods.run(node.name, command, resource=f"gismo.io/{_SECOND}.{name}")
    return json.loads(pods.logs(pod).splitlines()[-1])


def test_a_worker_pod_is_killed_in_the_middle_of_work(ray: Ray) -> None:
    failed: list[BaseException] = []
    ended = threading.Event()

    def work() -> None:
        try:
            while not ended.is_set():
                check(ray(1 << 24, 1))
        except BaseException as error:  # noqa: BLE001 - it is told below
            failed.append(error)

    # Ray itself fails a driver whose actor's node dies; what is asked is that the next one works, and that nothing stays.
    thread = threading.Thread(target=work)
    thread.start()
    workers = cluster.kubectl("get", "pods", "--selector=ray.io/node-type=worker", "--output=name").split()
    cluster.kubectl("delete", workers[0], "--force", "--grace-period=0")
    ended.set()
    thread.join()
    road.until_ready(road.WITH_GISMO)
    check(ray(1 << 26, 3))


def test_the_operator_is_down_while_work_goes_on(ray: Ray) -> None:
    cluster.kubectl(_SYSTEM, "scale", _OPERATOR, "--replicas=0")
    try:
        selector = "--selector=app.kubernetes.io/component=operator"
        until(lambda: not cluster.kubectl(_SYSTEM, "get", "pods", selector, "--output=name"))
        check(ray(1 << 26, 3))
        workers = cluster.kubectl("get", "pods", "--selector=ray.io/node-type=worker", "--output=name").split()
        cluster.kubectl("delete", workers[0], "--force", "--grace-period=0")  # its follower needs a share
        road.until_ready(road.WITH_GISMO)
        check(ray(1 << 26, 3))
        pool = yaml.safe_load(gismo.example("emulated/gismopool.yaml"))
        late = copy.deepcopy(pool)
        late["spec"]["namespaces"].append({"name": "late", "size": "64Mi"})
        apply(late)
    finally:
        cluster.kubectl(_SYSTEM, "scale", _OPERATOR, "--replicas=2")
    until(lambda: "late" in ranges("rack1"), why=gismo.describe)
    gismo.until_ready("rack1")
    apply(pool)
    until(lambda: "late" not in ranges("rack1"), why=gismo.describe)
    check(ray(1 << 26, 1))


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_a_namespace_is_removed_and_added_again(
    second: Callable[..., None], pods: Pods, workers: list[cluster.Node], policy: str
) -> None:
    data = namespace_of("data", policy, pods.namespace)
    other = namespace_of("other", "Delete")
    second(data, other)
    one, another = workers
    before = share(pods, one, "data", "share_script.py", "put", "kept")
    assert share(pods, another, "data", "share_script.py", "get", "kept") == {**before, "kept": True}
    apply(with_namespaces(other))
    if policy == "Delete":
        until(lambda: "data" not in ranges(_SECOND), why=gismo.describe)
        assert before["store"] not in [path.name for path in (cluster.shared() / _SECOND).iterdir()]
    else:
        until(lambda: ranges(_SECOND)["data"]["spec"]["state"] == "Retained", why=gismo.describe)
    second(data, other)
    until(lambda: ranges(_SECOND)["data"]["spec"]["state"] == "Active", why=gismo.describe)
    gismo.until_ready(_SECOND)
    after = share(pods, another, "data", "share_script.py", "get", "kept")
    if policy == "Delete":
        assert after["kept"] is None
        assert after["store"] != before["store"]
        assert b"gismo-e2e-secret" not in (cluster.shared() / _SECOND / after["store"]).read_bytes()
    else:
        assert after == {**before, "kept": True}
    apply(with_namespaces(namespace_of("data", "Delete"), other))  # so that it goes with the pool


def test_what_is_in_use_goes_by_force_and_who_uses_it_goes_on(
    second: Callable[..., None], pods: Pods, workers: list[cluster.Node]
) -> None:
    """A Gismo namespace by force, and the name given anew; then the whole pool by force, made anew on the same memory."""
    data, other = namespace_of("data", "Delete", pods.namespace), namespace_of("other", "Delete")
    second(data, other)
    holder = Path(__file__).with_name("holder_script.py").read_text()
    resource = f"gismo.io/{_SECOND}.data"

    def held() -> tuple[str, str]:
        pod = pods.run(workers[0].name, ["python3", "-c", holder], wait_for="Running", resource=resource)
        until(lambda: pods.logs(pod))
        return pod, json.loads(pods.logs(pod).splitlines()[0])["store"]

    def phase(pod: str) -> str:
        where = f"--namespace={pods.namespace}"
        return cluster.kubectl("get", where, f"pod/{pod}", "--output=jsonpath={.status.phase}")

    def by_force(*namespaces: str) -> None:
        value = f"gismo.io/force-delete={','.join(namespaces)}"
        cluster.kubectl("annotate", "--overwrite", f"gismopool/{_SECOND}", value)
        until(lambda: all(ranges(_SECOND)[one]["spec"]["force"] for one in namespaces), why=gismo.describe)

    def stores() -> list[str]:
        return [path.name for path in (cluster.shared() / _SECOND).iterdir()]

    pod, store = held()
    until(lambda: pod in json.dumps(ranges(_SECOND)["data"]["status"]), why=gismo.describe)
    with pytest.raises(cluster.ClusterFailed, match=f"in use.*{pod}"):
        cluster.kubectl("delete", f"gismopool/{_SECOND}", "--wait=false")
    by_force("data")
    apply(with_namespaces(other))
    until(lambda: "data" not in ranges(_SECOND), why=gismo.describe)
    assert store in stores(), "its bytes are nobody else's"
    second(data, other)
    new_pod, new_store = held()
    assert new_store != store
    assert (phase(pod), phase(new_pod)) == ("Running", "Running"), pods.logs(pod)
    by_force("data", "other")
    cluster.kubectl("delete", f"gismopool/{_SECOND}", "--wait=false")
    until(lambda: not ranges(_SECOND), why=gismo.describe)
    assert {store, new_store} <= set(stores())
    assert (phase(pod), phase(new_pod)) == ("Running", "Running"), pods.logs(new_pod)
    cluster.kubectl("delete", f"--namespace={pods.namespace}", "pods", "--all", "--grace-period=5")
    until(lambda: stores() == ["label"], why=gismo.describe)
    second(data)
    assert share(pods, workers[1], "data", "share_script.py", "get", "kept")["kept"] is None


def test_one_tenant_reaches_nothing_of_another(
    second: Callable[..., None], pods: Pods, workers: list[cluster.Node], namespace: str
) -> None:
    second(namespace_of("a", "Delete", pods.namespace), namespace_of("b", "Delete", "nobody-else"))
    theirs = ranges(_SECOND)["b"]["spec"]["storeUUID"]
    for user in (0, 1000, 4711):
        pods.user = user
        said = share(pods, workers[0], "a", "tenant_script.py", theirs)
        own = said.pop("own")
        assert said.pop("stores seen") == said.pop("state seen") == [own]
        assert own != theirs
        assert said.pop("mounts") == []
        assert said, "nothing was tried"
        assert not [what for what in said.values() if what.startswith("reached")], said
    with pytest.raises(cluster.ClusterFailed, match=f"add {namespace} to access.kubernetesNamespaces"):
        share(pods, workers[0], "b", "share_script.py", "get", "kept")


def test_two_tenants_as_in_the_example(second: Callable[..., None], workers: list[cluster.Node]) -> None:
    """The pool of examples/two-tenants, in a directory of its own: each team has a share of its own, and none of the other's."""
    example = yaml.safe_load(gismo.as_it_is("two-tenants/gismopool.yaml"))["spec"]
    assert example["source"] == {"emulated": {"capacity": "2Gi"}}
    teams = [one["name"] for one in example["namespaces"]]
    second(*example["namespaces"])
    for team in teams:
        cluster.kubectl("create", "namespace", team)
    try:
        stores = set()
        for team, other in zip(teams, reversed(teams), strict=True):
            cluster.kubectl("wait", "--for=create", f"--namespace={team}", "serviceaccount/default", "--timeout=60s")
            pods = Pods(team)
            stores.add(share(pods, workers[0], team, "share_script.py", "put", "kept")["store"])
            assert share(pods, workers[1], team, "share_script.py", "get", "kept")["kept"]
            with pytest.raises(cluster.ClusterFailed, match=f"add {team} to access.kubernetesNamespaces"):
                share(pods, workers[0], other, "share_script.py", "get", "kept")
        assert len(stores) == len(teams) == 2
    finally:
        for team in teams:
            cluster.kubectl("delete", "namespace", team, "--timeout=120s")


def test_workers_come_and_go_by_rays_autoscaler(emulated_pool: str) -> None:
    manifest = road.manifest("scaled", shares=True, memory="2Gi", plasma=100_000_000)
    manifest["spec"]["enableInTreeAutoscaling"] = True
    manifest["spec"]["autoscalerOptions"] = {
        "idleTimeoutSeconds": 10,
        "imagePullPolicy": "Never",
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    }
    manifest["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = "0"
    group = manifest["spec"]["workerGroupSpecs"][0]
    group |= {"replicas": 0, "minReplicas": 0, "maxReplicas": 2}
    apply(manifest)
    try:
        road.until_ready("scaled", pods_wanted=1)
        said = road.run("scaled", 1 << 24, rounds=2, script_name="scaled_script.py")
        assert len(set(said["nodes"])) == 2
        assert all(said["in the store"]), said
        until(lambda: len(road.pods("scaled")) == 1, 240, gismo.describe)  # idle workers go
        until(lambda: str(ranges(emulated_pool)["team-a"]["status"]["conditions"]).count("default/scaled-") == 1, 60)
    finally:
        road.remove("scaled")


def _under_load(ray: Ray, do: Callable[[], None]) -> None:
    """Work goes on, round after round, while something is done, and each round is as it should be."""
    check(ray(1 << 24, 1))
    ended = threading.Event()
    rounds: list[Any] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            while not ended.is_set() or not rounds:
                rounds.append(ray(1 << 24, 3))
        except BaseException as error:  # noqa: BLE001 - it is told below
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        do()
    finally:
        ended.set()
        thread.join()
    assert not failed, failed
    for one in rounds:
        check(one)


def test_helm_upgrade_under_load(ray: Ray) -> None:
    try:
        _under_load(ray, gismo.upgrade_to_another_tag)
        gismo.until_ready("rack1")
    finally:
        gismo.install()
    gismo.until_ready("rack1")
    check(ray(1 << 24, 1))


def test_helm_uninstall_leaves_running_pods_and_data_and_a_new_install_takes_them_over(ray: Ray) -> None:
    before = {name: one["spec"]["storeUUID"] for name, one in ranges("rack1").items()}
    try:
        _under_load(ray, gismo.uninstall)
        check(ray(1 << 24, 2))  # nobody is there but the pods and the memory
        assert {name: one["spec"]["storeUUID"] for name, one in ranges("rack1").items()} == before
        assert (cluster.shared() / before["team-a"]).exists()
    finally:
        gismo.install()
    gismo.until_ready("rack1")
    assert {name: one["spec"]["storeUUID"] for name, one in ranges("rack1").items()} == before
    cluster.kubectl("delete", "pods", "--selector=ray.io/node-type=worker", "--force", "--grace-period=0")
    road.until_ready(road.WITH_GISMO)
    check(ray(1 << 26, 2))
