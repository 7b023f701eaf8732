"""Host ids and the writer: an id is one node's for ever, dead is only who is proven dead, and there is one writer."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import kube_objects as make
from gismo_operator.api.v1alpha1 import NodeSpec, Standing
from gismo_operator.reconcile import hosts
from gismo_operator.reconcile.observed import ClusterNode


def ids(found: hosts.Hosts) -> dict[str, int]:
    return {name: spec.host_id for name, spec in found.specs.items()}


def after(found: hosts.Hosts, *names: str, **status: Any) -> hosts.Hosts:
    """The next decision, when that was written."""
    nodes = make.nodes(found.specs.values(), **status)
    return hosts.decide(make.observed(make.pool(), cluster=make.cluster(*names), nodes=nodes))


def test_each_node_has_the_lowest_free_id_and_one_writes() -> None:
    new = hosts.decide(make.observed(make.pool(), cluster=make.cluster("b", "a", "c")))
    assert ids(new) == {"a": 0, "b": 1, "c": 2}
    assert not any(spec.writer for spec in new.specs.values()), "what is created may be carried out late"
    found = after(new, "b", "a", "c")
    assert [name for name, spec in found.specs.items() if spec.writer] == ["a"]
    more = after(found, "A", "b", "a", "c", "d")
    assert [name for name, spec in more.specs.items() if spec.writer] == ["a"]


def test_only_nodes_that_are_asked_for_and_have_an_agent() -> None:
    cluster = (
        ClusterNode("a", {"rack": "1"}),
        ClusterNode("b", {"rack": "2"}),
        ClusterNode("c", {"rack": "1"}, has_agent=False),
    )
    assert ids(hosts.decide(make.observed(make.pool(nodeSelector={"rack": "1"}), cluster=cluster))) == {"a": 0}


def test_a_node_that_is_gone_keeps_its_id_and_is_suspect() -> None:
    first = after(hosts.decide(make.observed(make.pool(), cluster=make.cluster("a", "b"))), "a", "b")
    found = after(first, "b", "c")
    assert ids(found) == {"a": 0, "b": 1, "c": 2}
    assert found.specs["a"].standing is Standing.SUSPECT
    assert found.specs["a"].writer, "somebody who may be writing still is not replaced"


def test_dead_is_who_is_proven_dead() -> None:
    first = hosts.decide(make.observed(make.pool(), cluster=make.cluster("a", "b", "c", "d")))
    there = make.nodes(first.specs.values(), a={"bootId": "old"})
    cluster = (
        ClusterNode("a", boot_id="new"),
        ClusterNode("b", out_of_service=True),
        ClusterNode("d"),
    )
    wanted = make.pool(annotations={hosts.CONFIRMED_DEAD: "2, x"})
    found = hosts.decide(make.observed(wanted, cluster=cluster, nodes=there))
    standings = {name: spec.standing for name, spec in found.specs.items()}
    assert standings == {
        "a": Standing.DEAD,
        "b": Standing.DEAD,
        "c": Standing.DEAD,
        "d": Standing.ACTIVE,
    }
    assert [name for name, spec in found.specs.items() if spec.writer] == ["d"]


def test_who_finds_its_id_taken_gets_the_next_one_and_nobody_gets_that() -> None:
    first = after(hosts.decide(make.observed(make.pool(), cluster=make.cluster("a", "b"))), "a", "b")
    taken = {"takenHostId": 1}
    found = after(first, "a", "b", "c", b=taken)
    assert ids(found) == {"a": 0, "b": 2, "c": 3}
    assert ids(after(found, "a", "b", "c", b=taken)) == {"a": 0, "b": 2, "c": 3}, "that was about the id before"
    assert ids(after(found, "a", "b", "c", b={"takenHostId": 2})) == {"a": 0, "b": 4, "c": 3}
    full = {f"n{number:02}": number for number in range(64)}
    specs = [
        NodeSpec(pool=make.POOL, node=name, source=make.SOURCE, host_id=at, layout_version=1)
        for name, at in full.items()
    ]
    late = specs[7].model_copy(update={"node": "late"})
    nodes = make.nodes([*specs, late], late={"takenHostId": 7})
    none_left = hosts.decide(make.observed(make.pool(), cluster=make.cluster(*full, "late"), nodes=nodes))
    assert (none_left.specs["late"].host_id, none_left.without_id) == (7, ("late",))
    fewer = make.nodes([*specs[:63], late], late={"takenHostId": 7})
    assert (
        hosts.decide(make.observed(make.pool(), cluster=make.cluster(*full), nodes=fewer)).specs["late"].host_id == 63
    )


def test_more_nodes_than_ids() -> None:
    names = [f"n{number:02}" for number in range(70)]
    found = hosts.decide(make.observed(make.pool(), cluster=make.cluster(*names)))
    assert len(found.specs) == 64
    assert found.without_id == tuple(names[64:])


node_states = st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.booleans(), st.booleans()), max_size=6)


@given(st.lists(node_states, max_size=12))
def test_over_any_history_ids_are_unique_and_stay(history: list[dict[str, tuple[bool, bool]]]) -> None:
    specs: dict[str, NodeSpec] = {}
    for states in history:
        cluster = tuple(ClusterNode(name, ready=ready, out_of_service=off) for name, (ready, off) in states.items())
        found = hosts.decide(make.observed(make.pool(), cluster=cluster, nodes=make.nodes(specs.values())))
        assert all(found.specs[name].host_id == spec.host_id for name, spec in specs.items())
        assert len({spec.host_id for spec in found.specs.values()}) == len(found.specs)
        writers = [spec for spec in found.specs.values() if spec.writer]
        assert len(writers) <= 1
        before = [spec for spec in specs.values() if spec.writer]
        if before and found.specs[before[0].node].standing is not Standing.DEAD:
            assert writers[0].node == before[0].node
        specs = dict(found.specs)
