"""The operator's decisions on a real API server: it converges, rests, repairs, and an old leader gets a conflict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cleaning import remove_all
from resources import Resources

from set_clock import Clock

pytestmark = pytest.mark.integration

POOL = "rack7"


class Cluster(Resources):
    """The API server with nodes and agents that do as they are told."""

    def __init__(self, client: Any) -> None:
        from gismo_operator.kube import Kube
        from gismo_operator.reconciler import Reconciler

        super().__init__(client)
        self.clock = Clock()
        self.kube = Kube(client.client)
        self.reconciler = Reconciler(self.kube, self.clock)

    def add_node(self, name: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "annotations": {"gismo.io/regions": "[]"}, "labels": {"pool": POOL}},
        }
        self.cluster.create(body=body)
        status = {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"bootID": f"boot-{name}"}}
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}
        self.cluster.status.patch(name=name, body=body, content_type="application/merge-patch+json")

    def apply(self, *namespaces: dict[str, Any]) -> None:
        self.apply_pool(POOL, {"capacity": "1Gi"}, *namespaces)

    def agents(self, **in_use: str) -> None:
        """in_use: Gismo namespace → who."""
        releasing = [one.spec.storeUUID for one in self.ranges.get().items if one.spec.state == "Releasing"]
        for node in self.nodes.get().items:
            status = {
                "layoutVersion": node.spec.layoutVersion,
                "bootId": f"boot-{node.spec.node}",
                "ready": 1,
                "failing": 0,
                "failures": [],
                "released": releasing,
                "inUse": [{"namespace": name, "holders": [who]} for name, who in in_use.items()],
            }
            body = {
                "apiVersion": "gismo.io/v1alpha1",
                "kind": "GismoNode",
                "metadata": {"name": node.metadata.name},
                "status": status,
            }
            self.nodes.status.server_side_apply(body=body, name=node.metadata.name, field_manager="gismo-agent")

    def settle(self, **in_use: str) -> None:
        for _ in range(20):
            if self.reconciler.look(POOL) == 0.0:
                self.agents(**in_use)
                continue
            return
        raise AssertionError("it does not come to rest")

    def condition(self, name: str) -> tuple[str, str, str]:
        found = {one.type: one for one in self.pools.get(name=POOL).status.conditions}[name]
        return found.status, found.reason, found.message

    def namespaces(self) -> dict[str, Any]:
        return {one.spec.namespace: one for one in self.ranges.get().items if one.spec.pool == POOL}


@pytest.fixture
def world(client: Any) -> Iterator[Cluster]:
    made = Cluster(client)
    for name in ("a", "b"):
        made.add_node(name)
    yield made
    remove_all(made.pools, made.ranges, made.nodes, made.cluster)


TEAM_A = {"name": "team-a", "size": "64Mi", "access": {"kubernetesNamespaces": ["team-a"]}}
TEAM_B = {"name": "team-b", "size": "128Mi"}


def versions(world: Cluster) -> dict[str, str]:
    return {
        f"{one.kind} {one.metadata.name}": one.metadata.resourceVersion
        for resource in (world.pools, world.ranges, world.nodes)
        for one in resource.get().items
    }


def test_from_apply_to_ready_and_then_nothing_is_written(world: Cluster) -> None:
    world.apply(TEAM_A, TEAM_B)
    world.settle()
    assert world.condition("Ready")[:2] == ("True", "Ready")
    status = world.pools.get(name=POOL).status
    assert (status.capacity, status.allocated, status.free) == ("1Gi", "192Mi", "832Mi")
    assert (status.namespacesReady, status.nodesReady) == ("2/2", "2/2")
    assert {name: one.spec.offsetBytes >> 20 for name, one in world.namespaces().items()} == {"team-a": 2, "team-b": 66}
    assert {one.spec.node: one.spec.hostId for one in world.nodes.get().items} == {"a": 0, "b": 1}
    before = versions(world)
    for _ in range(3):
        assert world.reconciler.look(POOL) is None
    assert versions(world) == before


def test_what_is_deleted_by_hand_is_put_back(world: Cluster) -> None:
    world.apply(TEAM_A)
    world.settle()
    node = world.nodes.get().items[0]
    world.nodes.delete(name=node.metadata.name)
    world.settle()
    assert {one.spec.node: one.spec.hostId for one in world.nodes.get().items} == {"a": 0, "b": 1}
    assert world.condition("Ready")[0] == "True"


def test_a_range_that_somebody_changed_is_put_right(world: Cluster) -> None:
    world.apply(TEAM_A)
    world.settle()
    name = f"{POOL}.team-a"
    world.ranges.patch(name=name, body={"spec": {"sharesPerNode": 7}}, content_type="application/merge-patch+json")
    world.settle()
    assert world.ranges.get(name=name).spec.sharesPerNode == 64


def test_who_may_no_longer_have_a_share_is_taken_out(world: Cluster) -> None:
    world.apply(TEAM_A)
    world.settle()
    world.apply({**TEAM_A, "access": {"kubernetesNamespaces": ["team-b"]}})
    world.settle()
    assert list(world.namespaces()["team-a"].spec.access.kubernetesNamespaces) == ["team-b"]


def test_removed_waits_for_who_uses_it_and_then_goes(world: Cluster) -> None:
    world.apply(TEAM_A, TEAM_B)
    world.settle(**{"team-a": "team-a/ray-head"})
    world.apply(TEAM_B)
    world.settle(**{"team-a": "team-a/ray-head"})
    status, reason, message = world.condition("Progressing")
    assert (status, reason) == ("True", "WaitingForUse")
    assert "team-a is in use by team-a/ray-head on " in message
    in_use = {one.type: one for one in world.namespaces()["team-a"].status.conditions}["InUse"]
    assert in_use.status == "True"
    world.clock.now += 60
    world.settle(**{"team-a": "team-a/ray-head"})
    assert "team-a" in world.namespaces(), "it is in use still"
    world.agents()
    world.settle()
    assert set(world.namespaces()) == {"team-b"}
    assert world.condition("Progressing")[:2] == ("False", "Stable")


def test_a_pool_that_is_deleted_lets_its_ranges_go(world: Cluster) -> None:
    world.apply(TEAM_A, {**TEAM_B, "reclaimPolicy": "Retain"})
    world.settle()
    store = world.namespaces()["team-b"].spec.storeUUID
    world.pools.delete(name=POOL)
    world.settle()
    world.clock.now += 60
    world.agents()
    world.settle()
    assert {name: one.spec.state for name, one in world.namespaces().items()} == {"team-b": "Retained"}
    world.apply({**TEAM_B, "reclaimPolicy": "Retain"})
    world.settle()
    back = world.namespaces()["team-b"].spec
    assert (back.state, back.storeUUID) == ("Active", store)


@pytest.mark.parametrize("memory", [{"capacity": "2Gi"}, {"capacity": "1Gi", "directory": "/elsewhere"}])
def test_a_pool_that_is_made_anew_has_its_own_memory(world: Cluster, memory: dict[str, str]) -> None:
    world.apply(TEAM_A)
    world.settle()
    world.pools.delete(name=POOL)
    world.settle()
    world.clock.now += 60
    world.agents()
    world.settle()
    assert not world.namespaces()
    world.apply_pool(POOL, memory, TEAM_B)
    world.settle()
    assert world.condition("Ready")[:2] == ("True", "Ready")
    wanted = {"directory": "/var/lib/gismo/emulated", **memory}
    assert [one.spec.source.emulated.to_dict() for one in world.nodes.get().items] == [wanted] * 2


def test_an_old_leader_gets_a_conflict(world: Cluster) -> None:
    from gismo_operator.kube import Stale
    from gismo_operator.reconcile import plan

    world.apply(TEAM_A)
    world.settle()
    seen = world.kube.observe(POOL)  # by the old leader, who then sleeps
    world.apply({**TEAM_A, "sharesPerNode": 5}, TEAM_B)
    old_sees = world.kube.observe(POOL)
    old_plan = plan.decide(old_sees)
    world.settle()  # the new leader does the same, and more follows
    world.apply({**TEAM_A, "sharesPerNode": 9}, TEAM_B)
    world.settle()
    with pytest.raises(Stale):
        world.kube.carry_out(old_sees, old_plan)
    with pytest.raises(Stale):
        world.kube.carry_out(seen, old_plan)
    assert world.namespaces()["team-a"].spec.sharesPerNode == 9
