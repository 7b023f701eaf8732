"""The chart's accounts on a real API server: what they may is what they do, and an agent speaks for its own node only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accounts
import chart
import pytest
from apiserver import AUDIT_LOG, ControlPlane
from two_nodes import NODES, Cluster, played

pytestmark = pytest.mark.integration

TEAM_A = {"name": "team-a", "size": "64Mi", "access": {"kubernetesNamespaces": ["team-a"]}}


def asked(log: Path, begin: int, account: str) -> dict[tuple[str, str, str], set[int]]:
    """What an account asked for since then (API group, resource, verb), and the answers' codes."""
    user = f"system:serviceaccount:{chart.NAMESPACE}:{account}"
    found: dict[tuple[str, str, str], set[int]] = {}
    for line in log.read_bytes()[begin:].decode().splitlines():
        one = json.loads(line)
        ref = one.get("objectRef")
        if one["user"]["username"] == user and ref is not None:
            resource = "/".join(part for part in (ref["resource"], ref.get("subresource")) if part)
            key = (ref.get("apiGroup", ""), resource, one["verb"])
            found.setdefault(key, set()).add(one["responseStatus"]["code"])
    return found


def test_each_account_may_what_it_does_and_no_more(world: Cluster, control_plane: ControlPlane) -> None:
    log = control_plane.folder / AUDIT_LOG
    begin = log.stat().st_size

    async def story() -> None:
        world.apply(TEAM_A)
        await world.ready()
        world.apply()
        await world.eventually(lambda: not world.ranges.get().items)
        world.apply(TEAM_A)
        await world.ready()
        # What is ready a second time is an event that counts, of both accounts. (When a namespace comes back, all may be ready
        # before anybody has looked; so it is taken away from under them.)
        elsewhere = world.folder / "elsewhere"
        for _ in range(2):
            os.rename(world.memory, elsewhere)
            await world.eventually(lambda: (world.condition("Ready") or ("",))[0] == "False")
            os.rename(elsewhere, world.memory)
            await world.ready()
        for kind in ("GismoPool", "GismoNode"):
            await world.eventually(lambda kind=kind: any(one[4] > 1 for one in world.told(kind)))  # type: ignore[misc]

    played(world, story)
    world.end()
    for account in (accounts.OPERATOR, accounts.AGENT):
        did = asked(log, begin, account)
        assert not {key for key, codes in did.items() if 403 in codes}, "refused"
        assert set(did) == set(accounts.granted(account))


def refusal(call: Callable[[], Any]) -> str:
    from kubernetes.dynamic.exceptions import ForbiddenError

    with pytest.raises(ForbiddenError) as error:
        call()
    return str(error.value.summary())


def test_an_agent_speaks_for_its_own_node_only(world: Cluster, control_plane: ControlPlane, installed: Any) -> None:
    from kubernetes import config

    from gismo_kube.connection import dynamic_client

    def as_agent(node: str | None) -> Any:
        path = accounts.kubeconfig(control_plane, installed, accounts.AGENT, node)
        return dynamic_client(config.new_client_from_config(str(path)))

    for number, node in enumerate(NODES):
        spec = {"pool": "rack9", "node": node, "hostId": number, "incarnation": 1, "writer": False, "layoutVersion": 1}
        spec.update(standing="Active", source={"emulated": {"capacity": "1Gi", "directory": "/var/lib/gismo/emulated"}})
        body = {
            "apiVersion": "gismo.io/v1alpha1",
            "kind": "GismoNode",
            "metadata": {"name": f"rack9.{node}"},
            "spec": spec,
        }
        world.nodes.create(body=body)

    def say(client: Any, node: str, **more: Any) -> Any:
        nodes = client.resources.get(api_version="gismo.io/v1alpha1", kind="GismoNode")
        body = {"metadata": {"name": f"rack9.{node}"}, "status": {"ready": 1}, **more}
        return nodes.status.patch(name=f"rack9.{node}", body=body, content_type="application/merge-patch+json")

    def annotate(client: Any, node: str, body: dict[str, Any]) -> Any:
        nodes = client.resources.get(api_version="v1", kind="Node")
        return nodes.patch(name=node, body=body, content_type="application/merge-patch+json")

    a, of_no_node = as_agent("node-a"), as_agent(None)
    regions = {"metadata": {"annotations": {"gismo.io/regions": "[]"}}}
    say(a, "node-a")
    annotate(a, "node-a", regions)
    assert "this token is of node-a, not of node-b" in refusal(lambda: say(a, "node-b"))
    assert "this token is of node-a, not of node-b" in refusal(lambda: annotate(a, "node-b", regions))
    assert "this token is of no node" in refusal(lambda: say(of_no_node, "node-a"))
    only = "an agent writes the annotation gismo.io/regions of its Node and nothing else"
    changes: tuple[dict[str, Any], ...] = (
        {"metadata": {"annotations": {"other": "x"}}},
        {"metadata": {"labels": {"pool": "another"}}},
        {"metadata": {"labels": {"pool": None}}},
        {"metadata": {"finalizers": ["x.io/y"]}},
        {"spec": {"unschedulable": True}},
        {"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}},
    )
    for change in changes:
        assert only in refusal(lambda change=change: annotate(a, "node-a", change))  # type: ignore[misc]
    world.cluster.patch(
        name="node-a", body={"metadata": {"annotations": {"of": "others"}}}, content_type="application/merge-patch+json"
    )
    annotate(a, "node-a", regions)
    assert only in refusal(lambda: annotate(a, "node-a", {"metadata": {"annotations": {"of": None}}}))
    events = a.resources.get(api_version="events.k8s.io/v1", kind="Event")

    def tell(name: str, kind: str, of: str) -> Any:
        body = {
            "metadata": {"name": name, "namespace": "default"},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "gismo.io/agent",
            "reportingInstance": "node-a",
            "action": "Prepare",
            "reason": "Ready",
            "type": "Normal",
            "regarding": {"apiVersion": "gismo.io/v1alpha1", "kind": kind, "name": of},
        }
        return events.create(body=body, namespace="default")

    tell("own", "GismoNode", "rack9.node-a")
    for kind, of in (
        ("GismoNode", "rack9.node-b"),
        ("GismoPool", "rack9"),
        ("GismoPool", "rack9.node-a"),
        ("Node", "node-a"),
    ):
        assert "an agent writes about its own node only" in refusal(lambda: tell("other", kind, of))  # noqa: B023
    as_admin = world.events.get(name="own", namespace="default").to_dict()
    as_admin["metadata"] = {"name": "others", "namespace": "default"}
    as_admin["regarding"]["name"] = "rack9.node-b"
    world.events.create(body=as_admin, namespace="default")
    count = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}

    def again(name: str) -> Any:
        return events.patch(name=name, namespace="default", body=count, content_type="application/merge-patch+json")

    again("own")
    assert "this token is of node-a, not of node-b" in refusal(lambda: again("others"))
    assert "cannot delete" in refusal(lambda: events.delete(name="own", namespace="default"))
    ranges = a.resources.get(api_version="gismo.io/v1alpha1", kind="GismoNamespace")
    assert "cannot delete" in refusal(lambda: ranges.delete(name="rack9.team-a"))
    secrets = a.resources.get(api_version="v1", kind="Secret")
    assert "cannot list" in refusal(lambda: secrets.get())
