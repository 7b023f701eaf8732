"""What the chart installs and what its uninstall leaves, on a real API server."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import accounts
import binaries
import chart
import pytest
import yaml
from apiserver import ControlPlane
from two_nodes import ROOT, Cluster, played

pytestmark = pytest.mark.integration

TEAM_A = {"name": "team-a", "size": "64Mi", "access": {"kubernetesNamespaces": ["team-a"]}}
_EVERYTHING = (
    "image.digest=sha256:" + "0" * 64,
    "imagePullSecrets[0].name=secret",
    "operator.nodeSelector.a=b",
    "operator.podLabels.a=b",
    "operator.podAnnotations.a=b",
    "operator.tolerations[0].operator=Exists",
    "operator.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key=a",
    "operator.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator=Exists",
    "agent.nodeSelector.a=b",
    "agent.podLabels.a=b",
    "agent.podAnnotations.a=b",
    "agent.tolerations[0].operator=Exists",
    "agent.emulatedDirectories[0]=/mnt/cxl",
    "metrics.scrapeAnnotations=true",
    "metrics.podMonitor.enabled=true",
    "metrics.podMonitor.interval=30s",
    "metrics.podMonitor.labels.a=b",
)


@pytest.fixture(scope="module")
def prometheus_operator(client: Any) -> None:
    """The definition of a PodMonitor, of the Prometheus operator itself."""
    folder = binaries.module("github.com/prometheus-operator/prometheus-operator", "v0.85.0")
    (path,) = folder.glob("example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml")
    crds = client.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    body = yaml.safe_load(path.read_text())
    name = body["metadata"]["name"]
    crds.create(body=body)
    end = time.monotonic() + 30
    while not any(
        one.type == "Established" and one.status == "True" for one in crds.get(name=name).status.conditions or []
    ):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.usefixtures("prometheus_operator")
@pytest.mark.parametrize("values", [(), _EVERYTHING], ids=["as it is", "everything set"])
def test_the_api_server_takes_all_that_the_chart_has(installed: Any, values: tuple[str, ...]) -> None:
    objects = chart.rendered(*values)
    assert len(objects) > 20
    for body in objects:
        where = body["metadata"].get("namespace")
        kind = installed.resources.get(api_version=body["apiVersion"], kind=body["kind"])
        if body["kind"] == "Job" and values:
            continue  # nothing of the values above is in it
        kind.server_side_apply(
            body=body,
            name=body["metadata"]["name"],
            namespace=where,
            field_manager="helm",
            force_conflicts=True,
            dry_run="All",
            query_params=[("fieldValidation", "Strict")],
        )


def test_nothing_is_written_into_a_namespace_that_was_not_asked_for() -> None:
    namespaced = {"ServiceAccount", "Role", "RoleBinding", "Deployment", "DaemonSet", "Job", "Pod"}
    for one in chart.rendered():
        if one["metadata"]["name"] == f"{chart.RELEASE}-events":  # of objects that are in no namespace
            assert one["metadata"]["namespace"] == "default"
            assert one["kind"] == "RoleBinding" or one["rules"] == [
                {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}
            ]
            continue
        assert one["metadata"].get("namespace") == (chart.NAMESPACE if one["kind"] in namespaced else None), one


def test_switches() -> None:
    kinds = {one["kind"] for one in chart.rendered("crds.install=false", "admissionPolicies.install=false")}
    assert "CustomResourceDefinition" not in kinds
    assert not {one for one in kinds if one.startswith("Validating")}
    for one in chart.of_kind("CustomResourceDefinition"):
        assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("operator.replicas=0", "replicas"),
        ("image.digest=latest", "digest"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("agent.logLevel=LOUD", "logLevel"),
        ("agent.kubeletDirectory=kubelet", "kubeletDirectory"),
        ("replicas=3", "replicas"),
        ("agent.emulatedDirectories[0]=relative", "emulatedDirectories"),
        ("metrics.podMonitor.interval=often", "interval"),
        ("metrics.serviceMonitor.enabled=true", "serviceMonitor"),
    ],
)
def test_wrong_values_are_refused(value: str, said: str) -> None:
    with pytest.raises(chart.Refused, match=said):
        chart.rendered(value)


def run(module: str, kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, "--kubeconfig", str(kubeconfig), "--namespace", chart.NAMESPACE, *arguments],
        cwd=ROOT / "operator",
        capture_output=True,
        text=True,
        check=False,
    )


def make(client: Any, body: dict[str, Any]) -> Any:
    kind = client.resources.get(api_version=body["apiVersion"], kind=body["kind"])
    kind.create(body=body, namespace=body["metadata"].get("namespace"))
    return kind


def test_uninstall_and_install_again_keep_every_range(
    world: Cluster, control_plane: ControlPlane, installed: Any
) -> None:
    """What the pre-delete hook does, under its own account; then another operator."""
    account = f"{chart.RELEASE}-uninstall"
    kubeconfig = accounts.kubeconfig(control_plane, installed, account)
    (deployment,) = chart.of_kind("Deployment")
    name = deployment["metadata"]["name"]
    deployments = make(installed, deployment)

    def ranges() -> dict[str, Any]:
        return {one.metadata.name: one.to_dict() for one in world.ranges.get().items}

    async def story() -> None:
        world.apply(TEAM_A)
        await world.ready()
        before = ranges()
        assert [one["metadata"]["finalizers"] for one in before.values()] == [["gismo.io/range"]]
        process = world.processes["operator"]
        process.terminate()
        assert process.wait(30) == 0
        done = run("gismo_operator.uninstall", kubeconfig, "--deployment", name)
        assert done.returncode == 0, done.stderr
        assert "1 GismoNamespaces are without its finalizer" in done.stdout
        assert deployments.get(name=name, namespace=chart.NAMESPACE).spec.replicas == 0
        after = ranges()
        assert [one["metadata"].get("finalizers") for one in after.values()] == [None]
        again = run("gismo_operator.uninstall", kubeconfig, "--deployment", "there-is-none")
        assert (again.returncode, "forbidden" in again.stderr.lower()) == (1, True), again  # it may touch its own only
        world.start("operator")
        await world.eventually(lambda: all(one["metadata"].get("finalizers") for one in ranges().values()))
        assert {key: one["spec"] for key, one in ranges().items()} == {key: one["spec"] for key, one in before.items()}
        await world.ready()

    try:
        played(world, story)
    finally:
        deployments.delete(name=name, namespace=chart.NAMESPACE)


def test_check_says_what_is_missing(world: Cluster, control_plane: ControlPlane, installed: Any) -> None:
    kubeconfig = accounts.kubeconfig(control_plane, installed, f"{chart.RELEASE}-check")
    (daemonset,) = chart.of_kind("DaemonSet")
    name = daemonset["metadata"]["name"]

    def check(wait: float = 0) -> subprocess.CompletedProcess[str]:
        return run("gismo_operator.check", kubeconfig, "--agents", name, "--wait", str(wait))

    said = check()
    assert said.returncode == 1
    assert "no operator has led yet: kubectl logs" in said.stderr
    assert f"there is no DaemonSet {chart.NAMESPACE}/{name}" in said.stderr
    daemonsets = make(installed, daemonset)

    def scheduled(wanted: int, ready: int) -> None:
        status = {
            "desiredNumberScheduled": wanted,
            "numberReady": ready,
            "currentNumberScheduled": wanted,
            "numberMisscheduled": 0,
        }
        body = {"metadata": {"name": name}, "status": status}
        daemonsets.status.patch(
            name=name, namespace=chart.NAMESPACE, body=body, content_type="application/merge-patch+json"
        )

    async def story() -> None:
        scheduled(0, 0)
        assert "no node is for agents" in check().stderr
        scheduled(2, 1)
        assert "1 of 2 agents are ready" in check().stderr
        scheduled(2, 2)
        said = check(wait=30)
        assert said.returncode == 0, said.stderr
        assert "Gismo is in place" in said.stdout

    try:
        played(world, story)
        process = world.processes["operator"]
        process.terminate()
        assert process.wait(30) == 0
        assert "no operator leads: kubectl get pods" in check().stderr
    finally:
        daemonsets.delete(name=name, namespace=chart.NAMESPACE)
