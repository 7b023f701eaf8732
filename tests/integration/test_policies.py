"""The admission policies on a real API server: who may ask for a share, and what may be deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import bad_input
import chart
import pytest
import yaml

pytestmark = pytest.mark.integration

_WAIT_S = 30.0
A = "gismo.io/rack1.team-a"


def pool(name: str, **namespaces: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": "gismo.io/v1alpha1",
        "kind": "GismoPool",
        "metadata": {"name": name},
        "spec": {
            "source": {"emulated": {"capacity": "1Gi"}},
            "namespaces": [
                {"name": key.replace("_", "-"), "size": "64Mi", "access": {"kubernetesNamespaces": who}}
                for key, who in namespaces.items()
            ],
        },
    }


def _answer(call: Callable[[], Any]) -> str:
    """Of the API server: what it refuses, or nothing."""
    from kubernetes.dynamic.exceptions import DynamicApiError

    try:
        call()
    except DynamicApiError as error:
        return str(error.summary())
    return ""


def refusal(call: Callable[[], Any]) -> str:
    """What the API server says; AssertionError where it does not refuse."""
    said = _answer(call)
    assert said, "it was not refused"
    return said


class Server:
    """With our policies, and some Kubernetes namespaces."""

    def __init__(self, client: Any) -> None:
        own = "gismo.io/v1alpha1"
        self.pools = client.resources.get(api_version=own, kind="GismoPool")
        self.ranges = client.resources.get(api_version=own, kind="GismoNamespace")
        self.pods = client.resources.get(api_version="v1", kind="Pod")
        self.client = client

    def make(self, body: dict[str, Any], **more: Any) -> Any:
        return self.client.resources.get(api_version=body["apiVersion"], kind=body["kind"]).create(body=body, **more)

    def pod(self, namespace: str, *limits: dict[str, Any], init: dict[str, Any] | None = None, **more: Any) -> Any:
        """Would such a pod be taken? Nothing is stored."""
        containers = [
            {"name": f"c{n}", "image": "ray", "resources": {"limits": one}} for n, one in enumerate(limits or ({},))
        ]
        spec: dict[str, Any] = {"containers": containers, "automountServiceAccountToken": False}
        if init is not None:
            spec["initContainers"] = [{"name": "init", "image": "ray", "resources": {"limits": init}, **more}]
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray", "namespace": namespace}, "spec": spec}
        return self.pods.create(body=body, namespace=namespace, dry_run="All")


@pytest.fixture(scope="module")
def server(client: Any) -> Iterator[Server]:
    made = Server(client)
    names = ("team-a", "team-b", "stranger")
    for name in names:
        made.make({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
        made.make(account, namespace=name)
    bodies = [one for one in chart.policies() if one["metadata"]["name"] != "gismo-agents"]  # of test_rbac.py
    for body in bodies:
        made.make(body)
    made.pools.create(body=pool("rack1", team_a=["team-a"], both=["team-a", "team-b"], nobody=[]))
    made.pools.create(body=pool("rack2", team_a=["team-b"]))
    end = time.monotonic() + _WAIT_S
    while "GismoPool rack1" not in (said := _answer(lambda: made.pod("stranger", {A: 1}))):
        assert time.monotonic() < end, f"the policies do not take effect: {said}"  # a moment after they are stored
        time.sleep(0.1)
    yield made
    for body in reversed(bodies):
        client.resources.get(api_version=body["apiVersion"], kind=body["kind"]).delete(name=body["metadata"]["name"])
    time.sleep(1.0)
    for name in ("rack1", "rack2"):
        made.pools.delete(name=name)
    namespaces = client.resources.get(api_version="v1", kind="Namespace")
    for name in names:
        namespaces.delete(name=name)


def test_a_pod_has_what_its_namespace_was_given(server: Server) -> None:
    server.pod("team-a", {A: 1})
    server.pod("team-a", {A: 1}, {"gismo.io/rack1.both": "1"}, {"cpu": "1"})
    server.pod("team-b", {"gismo.io/rack1.both": 1})
    server.pod("team-b", {"gismo.io/rack2.team-a": 1})
    server.pod("stranger")
    server.pod("stranger", {"cpu": "1", "memory": "1Gi"})


@pytest.mark.parametrize("row", bad_input.rows("refused pods"), ids=lambda row: row["wrong"])
def test_what_is_refused_and_in_which_words(server: Server, row: bad_input.Row) -> None:
    """docs/bad-input.md: by the policy that it names, in these words."""
    given = yaml.safe_load(row["given"])
    more: dict[str, Any] = {"init": given["init"]} if "init" in given else {}
    if "sidecar" in given:
        more = {"init": given["sidecar"], "restartPolicy": "Always"}
    said = refusal(lambda: server.pod(given["namespace"], *given["containers"], **more))
    if row["policy"]:
        assert f"ValidatingAdmissionPolicy '{row['policy']}' with binding" in said
        assert said.rstrip(" \n").endswith(row["says"]), said
    else:  # the API server's own
        assert "ValidatingAdmissionPolicy" not in said
        assert row["says"] in said


def test_what_is_of_another_pool_is_that_pools_affair(server: Server) -> None:
    said = refusal(lambda: server.pod("team-a", {"gismo.io/rack2.team-a": 1}))
    assert "in GismoPool rack2: add team-a to access" in said


def test_without_any_pool_pods_are_made_as_ever(server: Server) -> None:
    there = [one.to_dict() for one in server.pools.get().items]
    for one in there:
        server.pools.delete(name=one["metadata"]["name"])
    end = time.monotonic() + _WAIT_S
    while _answer(lambda: server.pod("stranger", {A: 1})):  # the kubelets know no such resource then
        assert time.monotonic() < end, "the parameters that are gone still count"
        time.sleep(0.1)
    server.pod("stranger")
    for one in there:
        one["metadata"] = {"name": one["metadata"]["name"]}
        one.pop("status", None)
        server.pools.create(body=one)
    while not _answer(lambda: server.pod("stranger", {A: 1})):
        assert time.monotonic() < end, "the policies do not take effect again"
        time.sleep(0.1)


def test_a_sidecar_may_have_a_share(server: Server) -> None:
    server.pod("team-a", {}, init={A: 1}, restartPolicy="Always")


def made_range(server: Server, name: str, *, in_use: bool) -> None:
    spec = {
        "pool": "rack3",
        "namespace": name,
        "offsetBytes": 2 << 20,
        "sizeBytes": 64 << 20,
        "storeUUID": "0a1b2c3d-0000-4000-8000-000000000001",
        "coherence": "hardware",
        "sharesPerNode": 1,
        "runtimeInjection": "UserSite",
        "reclaimPolicy": "Delete",
        "access": {"kubernetesNamespaces": []},
        "state": "Active",
    }
    body: dict[str, Any] = {
        "apiVersion": "gismo.io/v1alpha1",
        "kind": "GismoNamespace",
        "metadata": {"name": f"rack3.{name}"},
        "spec": spec,
    }
    server.ranges.create(body=body)
    condition = {
        "type": "InUse",
        "status": "True" if in_use else "False",
        "reason": "PodsHoldShares",
        "message": "team-a/ray-head on node-1",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    del body["spec"]
    server.ranges.status.patch(
        name=f"rack3.{name}",
        body={**body, "status": {"conditions": [condition]}},
        content_type="application/merge-patch+json",
    )


def test_what_is_in_use_is_not_deleted(server: Server) -> None:
    server.pools.create(body=pool("rack3", used=[], idle=[]))
    made_range(server, "used", in_use=True)
    made_range(server, "idle", in_use=False)
    end = time.monotonic() + _WAIT_S
    # The parameters of a policy come from a cache, so what was stored just now is seen a moment later.
    while "rack3.used is in use" not in (said := refusal(lambda: server.ranges.delete(name="rack3.used"))):
        assert time.monotonic() < end, said
    assert "team-a/ray-head on node-1" in said
    server.ranges.delete(name="rack3.idle")
    time.sleep(1.0)
    said = refusal(lambda: server.pools.delete(name="rack3"))
    assert "its Gismo namespace rack3.used is in use: team-a/ray-head on node-1" in said
    assert "gismo.io/force-delete: used" in said
    patch = {"metadata": {"annotations": {"gismo.io/force-delete": "other, used"}}}
    server.pools.patch(name="rack3", body=patch, content_type="application/merge-patch+json")
    assert "try again when the operator has seen that" in refusal(lambda: server.pools.delete(name="rack3"))
    forced = {"spec": {"force": True}}  # as the operator does it
    server.ranges.patch(name="rack3.used", body=forced, content_type="application/merge-patch+json")
    while _answer(lambda: server.pools.delete(name="rack3")):
        assert time.monotonic() < end
        time.sleep(0.1)
    for given_up in (
        {"spec": {"state": "Releasing"}},
        {"spec": {"state": "Quarantined"}},
        {"metadata": {"annotations": {"gismo.io/force-delete": ""}}},
    ):
        said = refusal(lambda: server.ranges.delete(name="rack3.used"))
        assert "annotate it with gismo.io/force-delete" in said
        server.ranges.patch(name="rack3.used", body=given_up, content_type="application/merge-patch+json")
        server.ranges.delete(name="rack3.used")
        made_range(server, "used", in_use=True)
    server.ranges.patch(name="rack3.used", body=given_up, content_type="application/merge-patch+json")
    server.ranges.delete(name="rack3.used")
