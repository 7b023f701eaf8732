"""Gismo namespaces: nothing in use is freed, data is kept as promised, and what cannot be is said."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import kube_objects as make
from gismo_operator.api.v1alpha1 import NodeSpec, RangeSpec, RangeState, Standing
from gismo_operator.reconcile import ranges, tenants

MIB = 1024**2
WRITER = NodeSpec(pool=make.POOL, node="a", source=make.SOURCE, host_id=0, writer=True, layout_version=1)
OTHER = NodeSpec(pool=make.POOL, node="b", source=make.SOURCE, host_id=1, layout_version=1)


def decide(
    wanted: Any,
    specs: Any = (),
    *,
    deleted: Any = (),
    seen: Any = (),
    may_be_anew: Any = (),
    version: int = 1,
    **status: Any,
) -> tenants.Tenants:
    observed = make.observed(
        wanted,
        namespaces=make.stored(specs, deleted),
        nodes=make.nodes([WRITER, OTHER], **status),
        shares_seen=frozenset(seen),
        may_be_anew=frozenset(may_be_anew),
    )
    return tenants.decide(observed, version)


def test_new_ones_get_ranges_behind_the_label_in_the_order_asked_for() -> None:
    found = decide(make.pool(make.tenant("one"), make.tenant("two", "32Mi", sharesPerNode=3)))
    one, two = found.specs["one"], found.specs["two"]
    assert (one.offset_bytes, one.size_bytes, one.state) == (2 * MIB, 64 * MIB, RangeState.ACTIVE)
    assert (two.offset_bytes, two.size_bytes, two.shares_per_node) == (66 * MIB, 32 * MIB, 3)
    assert one.store_uuid != two.store_uuid
    assert found.problems == {}


def test_the_same_decision_twice_is_the_same() -> None:
    wanted = make.pool(make.tenant("one"))
    assert decide(wanted).specs == decide(wanted).specs
    assert decide(wanted).specs["one"].store_uuid != decide(wanted, version=2).specs["one"].store_uuid


def test_settings_change_and_the_range_does_not() -> None:
    first = decide(make.pool(make.tenant("one"))).specs["one"]
    access = {"kubernetesNamespaces": ["team"]}
    found = decide(make.pool(make.tenant("new", "32Mi"), make.tenant("one", access=access)), [first])
    assert found.specs["one"] == first.model_copy(update={"access": found.specs["one"].access})
    assert found.specs["one"].access.kubernetes_namespaces == ["team"]
    assert found.specs["new"].offset_bytes == 66 * MIB


def test_removed_in_use_waits_and_says_for_whom() -> None:
    first = decide(make.pool(make.tenant("one"))).specs["one"]
    releasing = decide(make.pool(), [first]).specs["one"]
    let_go = {"layoutVersion": 1, "released": [first.store_uuid]}
    in_use = {"inUse": [{"namespace": "one", "holders": ["team/ray-head"]}], **let_go}
    found = decide(make.pool(), [releasing], seen=["one"], a=let_go, b=in_use)
    assert found.specs["one"].state is RangeState.RELEASING
    assert found.waiting == {"one": ("team/ray-head on b",)}
    assert found.released == frozenset()


FORCED = make.pool(annotations={tenants.FORCE_DELETE: "other, one"})


def test_by_force_it_is_kept_from_use_its_object_goes_and_its_name_is_free() -> None:
    first = decide(make.pool(make.tenant("one"))).specs["one"]
    forced = decide(FORCED, [first]).specs["one"]
    assert (forced.state, forced.force) == (RangeState.RELEASING, True)
    let_go = {"layoutVersion": 1, "released": [first.store_uuid]}
    in_use: Any = {"layoutVersion": 1, "inUse": [{"namespace": "one", "holders": ["team/ray-head"]}]}
    early = decide(FORCED, [forced], a=let_go, b=in_use)
    assert (early.specs["one"].state, early.waiting) == (RangeState.RELEASING, {"one": ("team/ray-head on b",)})
    assert decide(FORCED, [forced], seen=["one"], a=let_go, b=let_go).released == {"one"}, "nobody uses it"
    found = decide(FORCED, [forced], seen=["one"], version=2, a=let_go, b=in_use)
    given_up = found.specs["one"]
    assert (given_up.state, given_up.layout_version, found.released) == (RangeState.QUARANTINED, 2, frozenset())
    assert decide(make.pool(), [given_up], seen=["one"], a=let_go, b=in_use).specs["one"].state is given_up.state
    entry = {"namespace": "one", "storeUUID": first.store_uuid, "offsetBytes": 2 * MIB, "sizeBytes": 64 * MIB}
    of_a, of_b = {**entry, "holders": []}, {**entry, "holders": ["team/ray-head"]}
    assert not decide(FORCED, [given_up], seen=["one"], a=let_go, b={**in_use, "quarantined": [of_b]}).released, (
        "the writer has not said that the pool label has it"
    )
    said: Any = {"a": {"layoutVersion": 2, "quarantined": [of_a]}, "b": {**in_use, "quarantined": [of_b]}}
    again = make.pool(make.tenant("one"))
    found = decide(again, [given_up], seen=["one"], **said)
    assert found.released == {"one"}
    assert not found.specs
    found = decide(again, **said)
    assert found.specs["one"].offset_bytes == 66 * MIB
    assert [(one.namespace, one.holders) for one in found.quarantined] == [("one", ("team/ray-head on b",))]
    assert decide(again).specs["one"].offset_bytes == 2 * MIB, "the pool label has it no more"


def test_force_outlives_the_pool_and_can_be_said_without_one() -> None:
    first = decide(make.pool(make.tenant("one"))).specs["one"]
    forced = decide(make.pool(make.tenant("one"), annotations={tenants.FORCE_DELETE: "one"}), [first]).specs["one"]
    assert (forced.state, forced.force) == (RangeState.ACTIVE, True)
    assert decide(None, [forced]).specs["one"].force
    assert not decide(make.pool(make.tenant("one")), [forced]).specs["one"].force, "it was taken back"
    by_hand = make.stored([first], annotations={tenants.FORCE_DELETE: ""})
    seen = make.observed(None, namespaces=by_hand, nodes=make.nodes([WRITER, OTHER]))
    assert tenants.decide(seen, 2).specs["one"].force


def test_what_the_pool_label_refused_goes_at_once_and_is_made_anew() -> None:
    wanted = make.pool(make.tenant("one"), make.tenant("late", reclaimPolicy="Retain"))
    both = decide(wanted).specs
    late = both["late"].model_copy(update={"offset_bytes": both["one"].offset_bytes})
    in_use: Any = {"inUse": [{"namespace": "one", "holders": ["x/y"]}]}
    overlapping = decide(wanted, [both["one"], late], b=in_use)
    assert "overlap" in overlapping.problems[""]
    refused: Any = {"a": {"refused": [late.store_uuid]}, "b": in_use}
    again = decide(wanted, [both["one"], late], **refused)
    assert (again.released, again.specs["late"]) == (frozenset(), late), "it is not time to make it anew"
    assert "refused again and again" in again.problems["late"]
    found = decide(wanted, [both["one"], late], may_be_anew=["late"], **refused)
    assert found.released == {"late"}
    assert list(found.specs) == ["one"]
    assert not found.problems
    of_another: Any = {"b": {**in_use, "refused": [late.store_uuid]}}
    assert not decide(wanted, [both["one"], late], may_be_anew=["late"], **of_another).released, (
        "only the writer can say so"
    )
    anew = decide(wanted, [both["one"]], version=2, **refused).specs["late"]
    assert anew.offset_bytes == 66 * MIB
    assert anew.store_uuid != late.store_uuid


def test_a_pool_that_is_made_anew_with_other_memory_waits_for_what_is_left_in_the_old() -> None:
    old = decide(make.pool(make.tenant("one"), make.tenant("two", reclaimPolicy="Retain"))).specs
    other = make.pool(make.tenant("one"), make.tenant("three"), directory="/other")
    left = [old["one"].model_copy(update={"state": RangeState.RELEASING}), old["two"]]
    found = decide(other, left)
    assert found.specs == {one.namespace: one for one in left}, "nothing new, and what is Active stays so"
    assert found.problems.keys() == {"one", "three"}
    assert f"one, {make.POOL}.two is left" in found.problems["three"]
    assert f"`kubectl delete gns {make.POOL}.two` to lose" in found.problems["three"]
    assert not decide(other).specs, "its nodes are still at the old memory"
    assert not decide(other).problems, "for a moment"


def test_of_another_capacity_nothing_is_given_out_before_the_nodes_know_it() -> None:
    old = decide(make.pool(make.tenant("one", reclaimPolicy="Retain"))).specs
    larger = make.pool(make.tenant("one", reclaimPolicy="Retain"), make.tenant("two"), capacity="2Gi")
    found = decide(larger, old.values())
    assert found.specs == old, "the same memory: what is there goes on"
    assert not found.problems
    assert {one.spec.source for one in make.nodes([WRITER, OTHER])} != {larger.spec.source}


def test_removed_goes_when_hidden_shares_are_seen_and_all_nodes_have_let_go() -> None:
    first = decide(make.pool(make.tenant("one"))).specs["one"]
    let_go = {"layoutVersion": 1, "released": [first.store_uuid]}
    everywhere: Any = {"a": let_go, "b": let_go}
    assert decide(make.pool(), [first], seen=["one"], **everywhere).released == frozenset(), "agents do not know yet"
    releasing = decide(make.pool(), [first]).specs["one"]
    assert decide(make.pool(), [releasing], **everywhere).released == frozenset(), (
        "a share may be given and not yet seen"
    )
    assert decide(make.pool(), [releasing], seen=["one"], a=let_go).released == frozenset()
    another = {"released": ["00000000-0000-0000-0000-000000000000"]}
    assert decide(make.pool(), [releasing], seen=["one"], a=let_go, b=another).released == frozenset()
    gone = decide(make.pool(), [releasing], seen=["one"], **everywhere)
    assert gone.released == {"one"}
    assert not gone.specs


def test_released_is_what_the_writer_zeroed_and_nobody_else_can_say_so() -> None:
    first = decide(make.pool(make.tenant("one"))).specs["one"]
    releasing = decide(make.pool(), [first]).specs["one"]
    let_go = {"layoutVersion": 1, "released": [first.store_uuid]}

    def is_released(*specs: NodeSpec, **status: Any) -> bool:
        nodes = make.nodes(specs, **status)
        seen = make.observed(
            make.pool(), namespaces=make.stored([releasing]), nodes=nodes, shares_seen=frozenset(["one"])
        )
        return "one" in tenants.decide(seen, 2).released

    assert is_released(WRITER, OTHER, a=let_go, b=let_go)
    dead = WRITER.model_copy(update={"standing": Standing.DEAD, "writer": False, "layout_version": 2})
    heir = OTHER.model_copy(update={"writer": True, "layout_version": 2})
    assert not is_released(dead, heir, b=let_go), "said when another was the writer: not mapped, and not zeroed"
    assert is_released(dead, heir, b={**let_go, "layoutVersion": 2})
    assert not is_released(dead, a=let_go), "nobody is left who could have zeroed it"


def test_bytes_are_free_when_their_object_has_gone() -> None:
    first = decide(make.pool(make.tenant("one"))).specs["one"]
    releasing = decide(make.pool(), [first]).specs["one"]
    let_go = {"layoutVersion": 1, "released": [first.store_uuid]}
    wanted = make.pool(make.tenant("two", "1Gi"))
    found = decide(wanted, [releasing], seen=["one"], a=let_go, b=let_go)
    assert found.released == {"one"}
    assert not found.specs, "as long as there is one, two would overlap it"
    assert not found.problems, "there is room as soon as one is gone"
    assert decide(wanted).specs["two"].offset_bytes == 2 * MIB


def test_what_is_being_released_does_not_come_back() -> None:
    first = decide(make.pool(make.tenant("one"))).specs["one"]
    releasing = decide(make.pool(), [first]).specs["one"]
    wanted = make.pool(make.tenant("one"))
    assert decide(wanted, [releasing]).specs["one"].state is RangeState.RELEASING
    let_go = {"layoutVersion": 1, "released": [first.store_uuid]}
    again = decide(wanted, [releasing], seen=["one"], a=let_go, b=let_go)
    assert again.released == {"one"}
    assert "one" not in again.specs, "first the object goes, then a new one is made"


def test_retained_keeps_its_range_for_the_same_name_only() -> None:
    first = decide(make.pool(make.tenant("one", reclaimPolicy="Retain"))).specs["one"]
    kept = decide(make.pool(make.tenant("two")), [first])
    assert kept.specs["one"].state is RangeState.RETAINED
    assert kept.specs["two"].offset_bytes == 66 * MIB
    back = decide(make.pool(make.tenant("one")), [kept.specs["one"]]).specs["one"]
    assert (back.state, back.offset_bytes, back.store_uuid) == (RangeState.ACTIVE, first.offset_bytes, first.store_uuid)
    other_size = decide(make.pool(make.tenant("one", "128Mi")), [kept.specs["one"]])
    assert other_size.specs["one"].size_bytes == 64 * MIB
    assert "its range has 64Mi, not 128Mi" in other_size.problems["one"]
    assert decide(make.pool(), [kept.specs["one"]], deleted=["one"]).specs["one"].state is RangeState.RELEASING


def test_a_pool_that_is_gone_releases_or_retains() -> None:
    first = decide(make.pool(make.tenant("one"), make.tenant("two", reclaimPolicy="Retain"))).specs
    found = decide(None, first.values())
    assert {name: spec.state for name, spec in found.specs.items()} == {
        "one": RangeState.RELEASING,
        "two": RangeState.RETAINED,
    }


def test_what_does_not_fit_is_said() -> None:
    found = decide(make.pool(make.tenant("one", "900Mi"), make.tenant("two", "200Mi"), capacity="1Gi"))
    assert list(found.specs) == ["one"]
    assert "there is no gap of 200Mi: the largest is 124Mi" in found.problems["two"]


entries = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.tuples(st.sampled_from(["32Mi", "64Mi", "320Mi"]), st.sampled_from(["Delete", "Retain"])),
    max_size=4,
)
names = st.sets(st.sampled_from(["a", "b", "c", "d"]))


@settings(deadline=None)
@given(st.lists(st.tuples(entries, names, names, names), max_size=12))
def test_over_any_history_nothing_in_use_is_freed_or_moved(history: list[Any]) -> None:
    there: dict[str, RangeSpec] = {}
    uuids: set[str] = set()
    for version, (asked, used, let_go, deleted) in enumerate(history, 1):
        wanted = make.pool(*(make.tenant(name, size, reclaimPolicy=policy) for name, (size, policy) in asked.items()))
        status = {
            "inUse": [{"namespace": name, "holders": ["x/y"]} for name in sorted(used & there.keys())],
            "released": [there[name].store_uuid for name in sorted(let_go & there.keys())],
            "layoutVersion": WRITER.layout_version,
        }
        found = decide(
            wanted, there.values(), deleted=deleted & there.keys(), seen=let_go, version=version,
            a=status, b={"released": status["released"]},
        )  # fmt: skip
        assert not found.released & used
        for name, spec in there.items():
            if name in found.released:
                assert spec.state is RangeState.RELEASING
                assert name in let_go
                continue
            now = found.specs[name]
            assert (now.offset_bytes, now.size_bytes, now.store_uuid) == (
                spec.offset_bytes,
                spec.size_bytes,
                spec.store_uuid,
            )
        new = {spec.store_uuid for name, spec in found.specs.items() if name not in there}
        assert not new & uuids, "a range that is given anew has another store"
        uuids |= new
        assert found.usable is not None
        as_ranges = {name: ranges.Range(one.offset_bytes, one.size_bytes) for name, one in found.specs.items()}
        assert ranges.conflicts(as_ranges, found.usable) == []
        there = dict(found.specs)
