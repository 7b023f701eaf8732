"""A share that is a character device, as of a pool of CXL memory, through a real kubelet and a real container runtime.

In the place of DAX devices stand harmless character devices of the nodes (char_devices.py): what is looked at is who may open
what. uid 1000 opens its own; any other gives EPERM, also to root in a container that makes a node of it for itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e import cluster, gismo, gismo_image, ray_images

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SERVER = Path(__file__).with_name("char_devices.py")
_READY_S = 120
_END_S = 60
# Opens a path for reading and writing and says how that went, as JSON; node: makes a device node for it first.
OPEN = """
import errno, json, os, stat, sys
def attempt(path, number=None):
    try:
        if number is not None:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*number))
        os.close(os.open(path, os.O_RDWR))
        return 'open'
    except OSError as error:
        return errno.errorcode[error.errno]
"""


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, Any]]:
    """Two resources of one node, offered by the plugin; the Kubernetes namespace whose pods may have them."""
    gismo.install()  # its agents and policies are there too, and have nothing against these resources: no GismoPool is of this name
    worker = next(node for node in cluster.nodes() if node.worker)
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "e2e-chars-"}}
    namespace = cluster.kubectl("create", "--filename=-", "--output=jsonpath={.metadata.name}", stdin=json.dumps(body))
    restricted = {
        **body,
        "metadata": {"name": f"{namespace}-r", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    cluster.kubectl("create", "--filename=-", stdin=json.dumps(restricted))
    for one in (namespace, f"{namespace}-r"):
        cluster.kubectl("wait", "--for=create", f"--namespace={one}", "serviceaccount/default", f"--timeout={_END_S}s")
    folders = ["/var/lib/kubelet/device-plugins", "/var/lib/kubelet/pod-resources", "/run/gismo", "/dev"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "server", "namespace": namespace},
        "spec": {
            "nodeName": worker.name,
            "terminationGracePeriodSeconds": 2,
            "hostPID": True,
            "containers": [
                {
                    "name": "main",
                    "image": f"{gismo_image.REPOSITORY}:{gismo_image.tag()}",
                    "imagePullPolicy": "Never",
                    "command": ["python3", "-c", SERVER.read_text(), f"--allow={namespace}", f"--allow={namespace}-r"],
                    "securityContext": {"privileged": True, "runAsUser": 0},
                    "volumeMounts": [{"name": f"v{number}", "mountPath": path} for number, path in enumerate(folders)],
                }
            ],
            "volumes": [{"name": f"v{number}", "hostPath": {"path": path}} for number, path in enumerate(folders)],
        },
    }
    try:
        cluster.kubectl("create", "--filename=-", stdin=json.dumps(pod))
        in_time = f"--timeout={_READY_S}s"
        cluster.kubectl("wait", f"--namespace={namespace}", "--for=condition=Ready", "pod/server", in_time)
        end = time.monotonic() + _READY_S
        while not (said := cluster.kubectl("logs", f"--namespace={namespace}", "server")).startswith("{"):
            assert time.monotonic() < end, said
            time.sleep(0.5)
        offered = json.loads(said.splitlines()[0])
        if len(offered) < 2:
            pytest.skip(f"this machine has not two harmless character devices: {offered}")
        while True:
            node = json.loads(cluster.kubectl("get", f"node/{worker.name}", "--output=json"))
            if all(node["status"]["allocatable"].get(one["resource"]) == "8" for one in offered.values()):
                break
            assert time.monotonic() < end, node["status"]["allocatable"]
            time.sleep(0.5)
        yield {"namespace": namespace, "node": worker.name, **offered}
    finally:
        remove = "import shutil; shutil.rmtree('/dev/gismo', True); [shutil.rmtree('/run/gismo/stores/' + s, True) for s in {!r}]"
        stores = ["c0ffee00-0000-4000-8000-000000000001", "c0ffee00-0000-4000-8000-000000000002"]
        for cleaning in (
            ("exec", f"--namespace={namespace}", "server", "--", "python3", "-c", remove.format(stores)),
            ("delete", f"namespace/{namespace}", f"namespace/{namespace}-r", f"--timeout={_END_S}s"),
        ):
            try:
                cluster.kubectl(*cleaning)
            except cluster.ClusterFailed as error:  # the test's own failure is the one to be seen
                print(error)


def ran(namespace: str, name: str, code: str, security: dict[str, Any], share: str | None = None) -> Any:
    """What a Python program in a pod prints as JSON."""
    limits = {share: 1} if share is not None else {}
    container = {
        "name": "main",
        "image": ray_images.RAY_NAME,
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", OPEN + code],
        "resources": {"limits": limits},
        "securityContext": security,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
    cluster.kubectl("create", "--filename=-", stdin=json.dumps(pod))
    told = (
        "wait",
        f"--namespace={namespace}",
        "--for=jsonpath={.status.phase}=Succeeded",
        f"pod/{name}",
        f"--timeout={_END_S}s",
    )
    try:
        cluster.kubectl(*told)
    except cluster.ClusterFailed:
        print(cluster.kubectl("describe", f"--namespace={namespace}", f"pod/{name}"))
        raise
    return json.loads(cluster.kubectl("logs", f"--namespace={namespace}", name))


RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def test_uid_1000_opens_its_own_and_sees_no_other(served: dict[str, Any]) -> None:
    own, other = served["one"], served["two"]
    code = f"""
path = os.environ['GISMO_STORE'].removeprefix('dax:')
found = os.stat(path)
print(json.dumps([os.getuid(), path, attempt(path), [os.major(found.st_rdev), os.minor(found.st_rdev)], os.listdir('/dev/gismo'),
                  attempt('/dev/gismo/{other["store"]}'), attempt('/tmp/made', ({other["major"]}, {other["minor"]}))]))
"""
    said = ran(f"{served['namespace']}-r", "own", code, RESTRICTED, own["resource"])
    path = f"/dev/gismo/{own['store']}"
    assert said == [1000, path, "open", [own["major"], own["minor"]], [own["store"]], "ENOENT", "EPERM"]


def test_root_in_a_container_cannot_open_another_tenants_either(served: dict[str, Any]) -> None:
    """It may make the node (CAP_MKNOD is among a container's usual ones); the device cgroup lets it open its own only."""
    own, other = served["one"], served["two"]
    code = f"""
print(json.dumps([attempt('/tmp/own', ({own["major"]}, {own["minor"]})),
                  attempt('/tmp/other', ({other["major"]}, {other["minor"]})), os.path.exists('/tmp/other')]))
"""
    assert ran(served["namespace"], "root", code, {"runAsUser": 0}, own["resource"]) == ["open", "EPERM", True]


def test_without_a_share_there_is_nothing(served: dict[str, Any]) -> None:
    own = served["one"]
    code = f"""
print(json.dumps([os.path.exists('/dev/gismo'), attempt('/tmp/made', ({own["major"]}, {own["minor"]}))]))
"""
    assert ran(served["namespace"], "none", code, {"runAsUser": 0}) == [False, "EPERM"]
