"""gismo_core in images that know nothing of it: what each kind of image gets, as docs/kubernetes.md, Ray without Gismo, has it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from e2e import cluster, gismo, ray_images, ray_variants

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

PROGRAM = Path(__file__).with_name("injected.py")
POOL, TENANT = "rack2", "team-a"
RESOURCE = f"gismo.io/{POOL}.{TENANT}"
PLAIN, RESTRICTED = "gismo-injection", "gismo-injection-restricted"
RANDOM_UID = 1_234_567
INJECTED = "/opt/gismo/python/gismo_core/__init__.py"
PIP = {"packages": [ray_variants.WHEEL], "pip_install_options": ["--no-index", "--no-deps"]}
_READY_S = 180
_RUN_S = 150
_SEEN_S = 90


@dataclass(frozen=True)
class Pod:
    """A pod with a share, of an image, in which injected.py runs."""

    image: str = ray_images.RAY_NAME
    namespace: str = PLAIN
    job: dict[str, Any] = field(default_factory=dict)  # what injected.py is told
    pod: dict[str, Any] = field(default_factory=dict)  # security context of the pod
    container: dict[str, Any] = field(default_factory=dict)  # and of the container
    environment: dict[str, str] = field(default_factory=dict)

    def manifest(self, name: str, node: str) -> dict[str, Any]:
        container = {
            "name": "ray",
            "image": self.image,
            "imagePullPolicy": "Never",
            "command": ["python3", "-c", PROGRAM.read_text(), json.dumps(self.job)],
            "env": [{"name": name, "value": value} for name, value in self.environment.items()],
            "resources": {
                "requests": {"cpu": "100m", "memory": "512Mi"},
                "limits": {"memory": "2Gi", RESOURCE: 1},
            },
            "securityContext": self.container,
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}],
        }
        memory = {"medium": "Memory", "sizeLimit": "256Mi"}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "containers": [container],
                "nodeSelector": {"kubernetes.io/hostname": node},
                "restartPolicy": "Never",
                "securityContext": self.pod,
                "terminationGracePeriodSeconds": 1,
                "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "shm", "emptyDir": memory}],
            },
        }


def eventually(what: Callable[[], bool], within_s: float = _READY_S) -> None:
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end, gismo.describe()
        time.sleep(0.5)


def get(*what: str) -> Any:
    return json.loads(cluster.kubectl("get", *what, "--output=json"))


def apply(*objects: dict[str, Any]) -> None:
    cluster.kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def inject_by(injection: str) -> None:
    """All agents answer so from now on."""
    source = {"emulated": {"capacity": "512Mi", "directory": f"{cluster.SHARED_IN_NODES}/{POOL}"}}
    access = {"kubernetesNamespaces": [PLAIN, RESTRICTED]}
    spec = {
        "source": source,
        "runtimeInjection": injection,
        "namespaces": [{"name": TENANT, "size": "256Mi", "access": access}],
    }
    apply({"apiVersion": "gismo.io/v1alpha1", "kind": "GismoPool", "metadata": {"name": POOL}, "spec": spec})

    def reached() -> bool:
        wanted = get("gismopool", POOL).get("status", {}).get("layoutVersion")
        nodes = [one for one in get("gismonodes")["items"] if one["spec"]["pool"] == POOL]
        ranges = [one for one in get("gismonamespaces")["items"] if one["spec"]["pool"] == POOL]
        return (
            [one["spec"]["runtimeInjection"] for one in ranges] == [injection]
            and len(nodes) == 2
            and all(one.get("status", {}).get("layoutVersion") == wanted for one in nodes)
        )

    eventually(reached)
    cluster.kubectl("wait", "--for=condition=Ready", f"gismopool/{POOL}", f"--timeout={_READY_S}s")


@pytest.fixture(scope="module")
def pool(workers: list[cluster.Node]) -> Iterator[cluster.Node]:
    """A pool of its own, with two Kubernetes namespaces that may use it; a node of it."""
    gismo.install()
    cluster.load(ray_variants.environments())
    memory = cluster.shared() / POOL
    memory.mkdir(mode=0o700, exist_ok=True)
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLAIN}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RESTRICTED, "labels": level}},
    )
    for name in (PLAIN, RESTRICTED):
        cluster.kubectl("wait", "--for=create", f"--namespace={name}", "serviceaccount/default", "--timeout=60s")
    try:
        inject_by("UserSite")
        yield workers[0]
    finally:
        cluster.kubectl("delete", "namespace", PLAIN, RESTRICTED, f"--timeout={_READY_S}s")
        eventually(lambda: "is in use" not in deleted(f"gismopool/{POOL}"))
        eventually(lambda: not [one for one in get("gismonamespaces")["items"] if one["spec"]["pool"] == POOL])
        shutil.rmtree(memory)


def deleted(what: str) -> str:
    try:
        return cluster.kubectl("delete", what, "--ignore-not-found")
    except cluster.ClusterFailed as error:
        return str(error)


@dataclass
class Runs:
    """Pods of a test, deleted afterwards."""

    node: str
    started: list[tuple[str, str]] = field(default_factory=list)

    def start(self, pod: Pod) -> tuple[str, str]:
        """Begin it; where it is found."""
        where = (f"--namespace={pod.namespace}", f"ray-{len(self.started)}")
        apply(pod.manifest(where[1], self.node))
        self.started.append(where)
        return where

    def said(self, where: tuple[str, str]) -> Any:
        """What its program found; it goes on, if it was told to stay."""
        end = time.monotonic() + _RUN_S
        while True:
            state = get("pod", *where)
            log = cluster.kubectl("logs", *where) if state["status"]["phase"] not in ("Pending", "Unknown") else ""
            for line in log.splitlines():
                if line.startswith("SAID "):
                    return json.loads(line[5:])
            if state["status"]["phase"] == "Failed" or time.monotonic() > end:
                raise AssertionError(f"{log[-4000:]}\n{cluster.kubectl('describe', 'pod', *where)}\n{gismo.describe()}")
            time.sleep(0.5)

    def log(self, where: tuple[str, str]) -> str:
        return cluster.kubectl("logs", *where)

    def run(self, pod: Pod) -> Any:
        return self.said(self.start(pod))


@pytest.fixture
def runs(pool: cluster.Node) -> Iterator[Runs]:
    made = Runs(pool.name)
    yield made
    for where in made.started:
        cluster.kubectl("delete", "pod", *where, "--timeout=60s")


def not_loaded() -> tuple[str, str, str]:
    """Status, reason and message of the condition."""
    conditions = get("gismonamespace", f"{POOL}.{TENANT}")["status"]["conditions"]
    one = next(one for one in conditions if one["type"] == "NotLoaded")
    return one["status"], one["reason"], one["message"]


def check(said: Any, package: str = INJECTED) -> None:
    """Everything lies in the store, in the driver as in its worker, and by this package."""
    for place in ("put", "argument", "returned"):
        assert said[place].startswith("/dev/gismo/"), said
    for process in ("driver", "worker"):
        assert said[process]["gismo_core"] == package, said
        assert said[process]["userbase"] is None, said


# ---- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pod", "python", "own_path", "mark"),
    [
        pytest.param(Pod(ray_variants.CONDA), "/opt/conda/bin/python3", [], {}, id="conda"),
        pytest.param(
            Pod(ray_variants.VENV_SYSTEM), "/opt/venv-system/bin/python3", [], {}, id="venv with system site",
            marks=pytest.mark.long,
        ),
        pytest.param(
            Pod(ray_variants.PYTHONPATH), "/usr/bin/python3", ["/opt/app"], {"app_of_image": "app"}, id="ENV PYTHONPATH",
            marks=pytest.mark.long,
        ),
        pytest.param(
            Pod(ray_variants.SITECUSTOMIZE), "/usr/bin/python3", ["/opt/custom"], {"sitecustomize": "custom"},
            id="another sitecustomize", marks=pytest.mark.long,
        ),
    ],
)  # fmt: skip
def test_images_that_are_injected(runs: Runs, pod: Pod, python: str, own_path: list[str], mark: dict[str, str]) -> None:
    said = runs.run(replace(pod, job={"modules": list(mark)}))
    check(said)
    for process in ("driver", "worker"):
        assert said[process]["python"] == python
        assert said[process]["marks"] == mark
        assert said[process]["pythonpath"].split(":") == ["/opt/gismo/boot", *own_path]
    assert not_loaded()[0] == "False"


@pytest.mark.long
def test_a_job_with_packages_of_its_own(runs: Runs) -> None:
    """runtime_env with pip: Ray makes a virtual environment for it, on top of the image's."""
    said = runs.run(
        Pod(ray_variants.PYTHONPATH, job={"runtime_env": {"pip": PIP}, "modules": ["tiny_thing", "app_of_image"]})
    )
    check(said)
    assert said["worker"]["marks"] == {"tiny_thing": "tiny", "app_of_image": "app"}
    assert "/virtualenv/bin/python" in said["worker"]["python"]


@pytest.mark.long
def test_a_plain_venv_is_told_of_pythonpath_which_works(runs: Runs) -> None:
    """And the condition goes with the pod; who has the one way does not lose it by the other."""
    where = runs.start(Pod(ray_variants.VENV, job={"stay": 600}))
    said = runs.said(where)
    assert said["driver"]["gismo_core"] is None
    assert not said["put"].startswith("/dev/gismo/")
    eventually(lambda: not_loaded()[0] == "True", _SEEN_S)
    _, reason, message = not_loaded()
    assert reason == "NotLoaded"
    assert f"container ray of pod {PLAIN}/{where[1]}" in message
    assert f"`runtimeInjection: PythonPath` in GismoPool {POOL}" in message
    assert get("gismopool", POOL)["status"]["nodesReady"] == "2/2"
    cluster.kubectl("delete", "pod", *where, "--timeout=60s")
    runs.started.clear()
    eventually(lambda: not_loaded()[0] == "False", _SEEN_S)
    inject_by("PythonPath")
    try:
        for image in (ray_variants.VENV, ray_variants.CONDA):
            check(runs.run(Pod(image)))
    finally:
        inject_by("UserSite")
    assert not_loaded()[0] == "False"


@pytest.mark.long
def test_an_images_own_package_wins(runs: Runs) -> None:
    cluster.load(ray_variants.own_gismo())
    said = runs.run(Pod(ray_variants.OWN))
    check(said, said["driver"]["gismo_core"])
    assert said["driver"]["gismo_core"].startswith("/opt/own/")


@pytest.mark.long
def test_an_own_package_of_another_store_format_says_so_and_does_without(runs: Runs) -> None:
    cluster.load(ray_variants.own_gismo())
    where = runs.start(Pod(ray_variants.SKEW, job={"stay": 600}))
    said = runs.said(where)
    assert said["driver"]["gismo_core"].startswith("/opt/skew/")
    for place in ("put", "argument", "returned"):
        assert not said[place].startswith("/dev/gismo/"), said
    refusal = (
        f"the store has format version 1, this build knows {ray_variants.OTHER_FORMAT}: use the gismo that made it"
    )
    assert refusal in runs.log(where)
    eventually(lambda: not_loaded()[0] == "True", _SEEN_S)
    _, reason, message = not_loaded()
    assert reason == "NotOpened"
    assert "the image's own gismo_core is of another store format" in message


# ---- users and what they may do -------------------------------------------------------------------------------------

READ_ONLY = {"readOnlyRootFilesystem": True}
AS_RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
NON_ROOT = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
NOBODY = {"runAsUser": RANDOM_UID, "runAsGroup": 0}  # as OpenShift has it: no name, no home
NO_HOME = {"HOME": "/tmp"}  # Ray itself wants one


@pytest.mark.long
@pytest.mark.parametrize(
    ("pod", "uid"),
    [
        pytest.param(Pod(pod={"runAsUser": 1000, "runAsGroup": 1000}), 1000, id="uid 1000"),
        pytest.param(Pod(pod=NOBODY, environment=NO_HOME), RANDOM_UID, id="random uid"),
        pytest.param(Pod(container=READ_ONLY, environment=NO_HOME), 1000, id="read-only root"),
        pytest.param(Pod(namespace=RESTRICTED, pod=NON_ROOT, container=AS_RESTRICTED), 1000, id="restricted"),
        pytest.param(
            Pod(
                ray_variants.CONDA, RESTRICTED, pod=NON_ROOT | NOBODY, container=AS_RESTRICTED | READ_ONLY,
                environment=NO_HOME,
            ),
            RANDOM_UID, id="all of it",
        ),
    ],
)  # fmt: skip
def test_users_and_what_they_may_do(runs: Runs, pod: Pod, uid: int) -> None:
    said = runs.run(pod)
    check(said)
    assert said["driver"]["uid"] == said["worker"]["uid"] == uid


@pytest.mark.long
def test_two_users_share_a_store_on_a_node(runs: Runs) -> None:
    """At the same time: the first one's stays. (Started one by one: Ray ends after 30 s of starting.)"""
    for pod in (
        Pod(job={"stay": 600}),
        Pod(pod=NOBODY, environment=NO_HOME),
        Pod(pod={"runAsUser": 0}, environment=NO_HOME),
    ):
        check(runs.run(pod))
    assert get("pod", *runs.started[0])["status"]["phase"] == "Running"


def test_a_pod_that_is_not_restricted_is_kept_out_by_the_namespace(pool: cluster.Node) -> None:
    """The namespace of the tests above does enforce it."""
    manifest = Pod(namespace=RESTRICTED).manifest("stranger", pool.name)
    with pytest.raises(cluster.ClusterFailed, match='violates PodSecurity "restricted'):
        cluster.kubectl("create", "--filename=-", stdin=json.dumps(manifest))
