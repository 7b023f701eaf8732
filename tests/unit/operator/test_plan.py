"""The whole decision: it converges, and says of the pool what was observed."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import kube_objects as make
from gismo_operator.api.v1alpha1 import ConditionStatus, NodeSpec, RangeSpec
from gismo_operator.conditions import Said, merged
from gismo_operator.reconcile import plan
from gismo_operator.reconcile.observed import ClusterNode


class World:
    """An API server and agents that do as they are told, or not yet."""

    def __init__(self) -> None:
        self.wanted: Any = None
        self.ranges: dict[str, RangeSpec] = {}
        self.nodes: dict[str, NodeSpec] = {}
        self.status: dict[str, dict[str, Any]] = {}
        self.cluster: tuple[ClusterNode, ...] = ()
        self.deleted: set[str] = set()
        self.version = 0

    def decide(self) -> plan.Plan:
        status = self.wanted.status.model_copy(update={"layout_version": self.version})
        self.wanted = self.wanted.model_copy(update={"status": status})
        return plan.decide(
            make.observed(
                self.wanted,
                namespaces=make.stored(self.ranges.values(), self.deleted),
                nodes=make.nodes(self.nodes.values(), **self.status),
                cluster=self.cluster,
                shares_seen=frozenset(self.ranges),
                may_be_anew=frozenset(self.ranges),
            )
        )

    def apply(self, decided: plan.Plan) -> None:
        self.ranges = dict(decided.ranges)
        self.nodes = dict(decided.nodes)
        self.deleted &= self.ranges.keys()
        self.version = decided.layout_version

    def agents(self, **failures: list[dict[str, str]]) -> None:
        for name, spec in self.nodes.items():
            self.status[name] = {
                "layoutVersion": spec.layout_version,
                "failures": failures.get(name, []),
                "released": [one.store_uuid for one in self.ranges.values() if one.state.value == "Releasing"],
            }

    def settle(self) -> plan.Plan:
        for _ in range(20):
            decided = self.decide()
            before = self.ranges, self.nodes
            self.apply(decided)
            self.agents()
            if (self.ranges, self.nodes) == before and self.decide() == decided:
                return decided
        raise AssertionError("it does not converge")


def said(decided: plan.Plan) -> dict[str, Said]:
    return {one.type: one for one in decided.pool.conditions}


def new_world() -> World:
    world = World()
    world.wanted = make.pool(make.tenant("one"), make.tenant("two", "32Mi"))
    world.cluster = make.cluster("a", "b")
    return world


def test_the_road_to_ready() -> None:
    world = new_world()
    first = world.decide()
    assert (first.layout_version, said(first)["Ready"].is_true) == (1, False)
    world.apply(first)
    second = world.decide()
    assert second.layout_version == 2, "who writes is decided when the GismoNodes are there"
    world.apply(second)
    second = world.decide()
    assert second.layout_version == 2
    assert said(second)["Ready"].reason == "NodesNotReady"
    assert said(second)["Progressing"].reason == "Carving"
    world.agents()
    third = world.decide()
    assert said(third)["Ready"].is_true
    assert said(third)["Progressing"].reason == "Stable"
    assert (third.pool.nodes_ready, third.pool.namespaces_ready) == ("2/2", "2/2")
    assert (third.pool.capacity, third.pool.allocated, third.pool.free) == ("1Gi", "96Mi", "928Mi")
    assert third.namespaces["one"].nodes_ready == "2/2"


def test_nobody_is_there() -> None:
    world = new_world()
    world.cluster = ()
    assert said(world.decide())["Ready"].reason == "NoNodes"


def test_what_fails_is_said_with_the_node() -> None:
    world = new_world()
    world.apply(world.decide())
    world.apply(world.decide())
    world.agents(b=[{"namespace": "one", "reason": "NotTheSameMemory", "message": "the nonce of a is not there"}])
    decided = world.decide()
    assert said(decided)["Degraded"] == Said("Degraded", True, "NotTheSameMemory", "b: the nonce of a is not there")
    assert said(decided)["Ready"].reason == "NodesNotReady"
    assert [one.nodes_ready for one in decided.namespaces.values()] == ["1/2", "2/2"]
    assert decided.namespaces["one"].conditions[0].reason == "NotTheSameMemory"


def test_a_container_without_gismo_is_named_and_makes_nothing_less_ready() -> None:
    world = new_world()
    world.settle()
    found = {"namespace": "one", "holder": "team/head", "reason": "NotLoaded", "message": "take PythonPath"}
    world.status["b"]["notLoaded"] = [found]
    decided = world.decide()
    conditions = {name: {each.type: each for each in one.conditions} for name, one in decided.namespaces.items()}
    assert conditions["one"]["NotLoaded"] == Said("NotLoaded", True, "NotLoaded", "on b: take PythonPath")
    assert conditions["two"]["NotLoaded"].is_true is False
    assert said(decided)["Ready"].is_true
    assert conditions["one"]["Ready"].is_true


def test_a_node_that_is_down_does_not_hold_up_the_others() -> None:
    world = new_world()
    world.settle()
    world.cluster = (ClusterNode("a"), ClusterNode("b", ready=False))
    decided = world.settle()
    assert said(decided)["Ready"].is_true
    assert decided.pool.nodes_ready == "1/1"


def test_a_time_changes_with_the_status_only() -> None:
    old = merged([], [Said("Ready", False, "NoNodes")], "2026-01-01T00:00:00Z", 1)
    same = merged(old, [Said("Ready", False, "NodesNotReady", "soon")], "2026-01-02T00:00:00Z", 2)
    assert (same[0].last_transition_time, same[0].reason) == ("2026-01-01T00:00:00Z", "NodesNotReady")
    now = merged(same, [Said("Ready", True, "Ready")], "2026-01-03T00:00:00Z", 2)
    assert (now[0].last_transition_time, now[0].status) == ("2026-01-03T00:00:00Z", ConditionStatus.TRUE)
    assert now[0].observed_generation == 2


steps = st.tuples(
    st.dictionaries(st.sampled_from(["one", "two", "three"]), st.sampled_from(["32Mi", "64Mi"]), max_size=3),
    st.dictionaries(st.sampled_from("abc"), st.booleans(), max_size=3),
    st.booleans(),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(steps, min_size=1, max_size=6))
def test_from_anywhere_it_converges_and_then_rests(history: list[Any]) -> None:
    world = World()
    versions = [0]
    for asked, cluster, agents_work in history:
        world.wanted = make.pool(*(make.tenant(name, size) for name, size in asked.items()))
        world.cluster = tuple(ClusterNode(name, ready=ready) for name, ready in cluster.items())
        decided = world.decide()
        world.apply(decided)
        versions.append(decided.layout_version)
        if agents_work:
            world.agents()
    assert versions == sorted(versions)
    last = world.settle()
    assert world.decide() == last, "at rest nothing is written"
    sizes = {name: f"{spec.size_bytes >> 20}Mi" for name, spec in world.ranges.items()}
    asked = history[-1][0]
    assert all(
        sizes[name] == size or f"has {sizes[name]}" in said(last)["Degraded"].message for name, size in asked.items()
    )


def test_all_that_cannot_be_is_said() -> None:
    world = World()
    world.wanted = make.pool(make.tenant("one", "32Mi"), make.tenant("two", "64Mi"))
    world.cluster = make.cluster("a")
    world.settle()
    world.wanted = make.pool(make.tenant("one", "64Mi"), make.tenant("two", "32Mi"))
    message = said(world.settle())["Degraded"].message
    assert "one: its range has 32Mi, not 64Mi" in message
    assert "two: its range has 64Mi, not 32Mi" in message


def test_it_goes_on_from_the_newest_layout_that_a_node_has_seen() -> None:
    world = new_world()
    world.settle()
    before = world.version
    world.nodes, world.ranges, world.version = {}, {}, 0  # as after `kubectl delete gismonodes`, or a loss of etcd
    world.status = {}
    world.apply(world.decide())
    world.apply(world.decide())
    assert world.version <= before
    conflict = {
        "namespace": "",
        "reason": "LayoutConflict",
        "message": "layout 2 is older than the one in the pool label, 40",
    }
    for name in world.nodes:
        world.status[name] = {"layoutVersion": 40, "failures": [conflict], "released": []}
    before = world.version
    for one in world.status.values():
        one["failures"] = [{**conflict, "reason": "NotTheSameMemory"}]
    assert world.decide().layout_version == before, "another memory's label counts for nothing"
    for one in world.status.values():
        one["failures"] = [conflict]
    assert world.decide().layout_version == 41
    world.apply(world.decide())
    assert {spec.layout_version for spec in world.nodes.values()} == {41}
    assert world.decide().layout_version == 41, "once"
    assert said(world.settle())["Ready"].is_true


def test_a_pool_that_is_made_anew_with_other_memory_is_looked_for_there() -> None:
    world = new_world()
    world.settle()
    other = make.pool(make.tenant("one"), directory="/other")
    world.wanted = other
    world.apply(world.decide())
    assert {spec.source for spec in world.nodes.values()} != {other.spec.source}, (
        "what is left of the old is in the old memory"
    )
    world.ranges = {}
    world.apply(world.decide())
    assert {spec.source for spec in world.nodes.values()} == {other.spec.source}
    assert not world.ranges, "first the agents have to know where it is"
    assert said(world.settle())["Ready"].is_true
    assert world.ranges.keys() == {"one"}


def test_a_pool_that_is_made_anew_with_another_capacity_goes_on_in_its_memory() -> None:
    world = new_world()
    before = world.settle().ranges
    world.wanted = make.pool(make.tenant("one"), make.tenant("two", "32Mi"), make.tenant("new", "1Gi"), capacity="2Gi")
    world.apply(world.decide())
    assert {spec.source for spec in world.nodes.values()} == {world.wanted.spec.source}
    assert world.ranges.keys() == before.keys()
    assert said(world.settle())["Ready"].is_true
    assert world.ranges["new"].offset_bytes == before["two"].offset_bytes + before["two"].size_bytes
    world.wanted = make.pool(make.tenant("one"), make.tenant("two", "32Mi"), make.tenant("new", "1Gi"), capacity="64Mi")
    assert "new lies outside of the pool's memory" in said(world.settle())["Degraded"].message
