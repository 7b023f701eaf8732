"""What failing API servers have found in the operator, each as the shortest history that shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from api_model import Call
from failing_cluster import (
    Agent,
    Arrive,
    DeletePool,
    DeleteRange,
    Dies,
    Edit,
    Force,
    ForceRange,
    Late,
    Look,
    Node,
    NotDone,
    Process,
    Restart,
    Slow,
    Takeover,
    Use,
    Wait,
    World,
    replay,
)

from gismo_deviceplugin.pool import succession, view
from gismo_deviceplugin.pool.label import State
from gismo_kube.connection import REQUEST_ERRORS
from gismo_operator.kube import Kube
from gismo_operator.reconcile import tenants

ONE = ("one", 64, "Delete", ())
TWO = ("two", 64, "Delete", ())
AGENTS = (Agent("a"), Agent("b"), Agent("a"), Agent("b"))
UP = (Edit((ONE,)), (), (), *AGENTS, *AGENTS, (), ())
ZEROED = ((), *AGENTS, (), Wait(11.0), *AGENTS)  # after it was taken out of the list; the next look frees it


def test_a_new_range_is_not_made_over_one_that_is_still_there() -> None:
    replay(*UP, Edit(()), *ZEROED, Edit((("two", 128, "Delete", ()),)), ()).settle()


def test_who_becomes_the_writer_has_not_zeroed_what_it_released_before() -> None:
    replay(*UP, Edit(()), (), Agent("b"), (), Wait(11.0), (), Node("a", "off"), (), (), ()).settle()


def test_when_all_are_dead_nobody_has_zeroed() -> None:
    dead = (Node("a", "off"), Node("b", "off"))
    replay(*UP, Edit(()), (), Agent("b"), (), Wait(11.0), (), *dead, (), (), ()).settle()


def test_an_old_leader_does_not_delete_the_next_range_of_that_name() -> None:
    slow = Slow((Takeover(1), *AGENTS, Wait(11.0), Look(3), Edit((ONE,)), Look(3)))
    for number in range(4, 10):  # in the call that deletes, wherever it stands
        replay(*UP, Edit(()), *ZEROED, (*[None] * number, slow)).settle()


def test_there_are_never_two_writers() -> None:
    to_b = (Node("a", "off"), (), *AGENTS, Node("a", "ready"), *AGENTS, (), *AGENTS, ())
    for number in range(4, 8):
        meets = (*[None] * number, NotDone())  # between the one that is not any more and the one that is
        replay(*UP, *to_b, Node("b", "off"), meets).settle()


def test_a_pool_that_goes_under_a_look() -> None:
    replay(*UP, (*[None] * 4, Slow((DeletePool(),)))).settle()


def test_who_may_no_longer_is_taken_out() -> None:
    world = replay(Edit((("one", 64, "Delete", ("x",)),)), (), (), Edit((("one", 64, "Delete", ("y",)),)), ())
    world.settle()
    assert world.ranges()["one"]["spec"]["access"] == {"kubernetesNamespaces": ["y"]}


def test_agents_are_told_of_a_range_whose_maker_was_cut_off() -> None:
    for number in range(5, 9):
        replay(*UP, Edit((ONE, TWO)), (*[None] * number, NotDone())).settle()


def test_what_a_dead_node_used_is_void_and_a_pool_that_is_gone_has_a_writer_as_long_as_a_node_lives() -> None:
    replay(*UP, Use("a", "one", True), *AGENTS, DeletePool(), (), Node("a", "off"), ()).settle()


def test_a_status_of_which_nobody_knows_whether_it_was_written() -> None:
    for number in range(4, 9):
        replay(Edit((ONE,)), (*[None] * number, NotDone()), (), *AGENTS, (*[None] * 4, NotDone(0))).settle()


def test_a_list_that_fails_is_not_the_one_before() -> None:
    for number in range(4):
        meets = (*[None] * number, NotDone(500))
        replay(*UP, Edit((ONE, TWO)), (), Edit((ONE, ("three", 64, "Delete", ()))), meets).settle()


def test_a_writer_that_hears_of_a_range_later_than_of_its_layout() -> None:
    replay(*UP, Edit((ONE, TWO)), (), Agent("a", "ranges")).settle()


def test_a_range_that_arrives_late_over_anothers_bytes_goes_and_is_made_anew() -> None:
    both = (("three", 96, "Delete", ()), TWO)
    for asked in (both[:1], both):
        world = replay(
            *UP, Edit((ONE, TWO)), (*[None] * 4, Late()), Edit((ONE, *both[:1])), Takeover(3), *AGENTS, Arrive()
        )
        assert {"one", "two", "three"} == world.ranges().keys()
        assert world.ranges()["two"]["spec"]["offsetBytes"] == world.ranges()["three"]["spec"]["offsetBytes"]
        Edit(tuple(asked) if len(asked) == 1 else (asked[0], ("two", 64, "Delete", ()))).do(world)
        world.settle()
        assert world.ranges().keys() == {one[0] for one in asked}


def test_a_range_that_arrives_late_and_was_deleted_and_zeroed_before_is_not_formatted_again() -> None:
    retried = (Edit((ONE, TWO)), (*[None] * 4, Late()), (), *AGENTS, ())
    world = replay(*UP, *retried, Use("a", "two", True), Use("a", "two", False), Edit((ONE,)), *ZEROED, (), *AGENTS, ())
    assert world.ranges().keys() == {"one"}
    Arrive().do(world)
    assert world.ranges()["two"]["spec"]["storeUUID"] in world.memory.zeroed
    Edit((ONE, TWO)).do(world)
    world.settle()
    assert world.ranges()["two"]["spec"]["storeUUID"] in world.memory.stores


def test_a_node_that_arrives_late_with_anothers_host_id_gets_one_of_its_own() -> None:
    late = (Node("c", "ready"), (*[None] * 5, Late()), Node("c", "gone"), Node("d", "ready"), Takeover(3))
    world = replay(*UP, *late, Agent("d"), *AGENTS, Arrive(), Node("c", "ready"))
    assert world.nodes()["c"]["spec"]["hostId"] == world.nodes()["d"]["spec"]["hostId"] == 2
    agents = (*AGENTS, Agent("d"), Agent("c"), Agent("d"), Agent("c"))
    for act in agents:
        act.do(world)
    failures = world.nodes()["c"]["status"]["failures"]
    assert [one["reason"] for one in failures] == ["HostIdTaken"]
    world.settle()
    assert (world.nodes()["c"]["spec"]["hostId"], world.nodes()["d"]["spec"]["hostId"]) == (3, 2)
    assert "layoutVersion" in world.nodes()["c"]["status"]


def test_a_node_that_arrives_late_is_no_second_writer() -> None:
    for number in range(4, 7):
        late = (Edit((ONE,)), (*[None] * number, Late()), Node("a", "gone"), Takeover(3), Agent("b"), ())
        replay(*late, Agent("b"), Arrive(), Node("a", "ready"), *AGENTS, *AGENTS).settle()


def test_in_a_boot_that_the_operator_has_not_seen_nothing_is_begun() -> None:
    """What the dead held is void: so it must not hold anything anew before the operator knows that it lives."""
    up = (
        *UP,
        Node("c", "ready"),
        (),
        Agent("c"),
        Agent("c"),
        *AGENTS,
        Agent("c"),
        *AGENTS,
        Agent("c"),
        Use("c", "one", True),
        Agent("c"),
        (),
    )
    back = (Node("c", "reboots"), (), Agent("c", "mute"), Restart("c"))
    replay(*up, *back, Edit(()), (), *AGENTS, (), Wait(11.0), *AGENTS, ()).settle()


def test_by_force_a_name_is_free_while_it_is_used_and_its_bytes_are_not() -> None:
    used = (*UP, Use("b", "one", True), *AGENTS, (), Force(("one",)), Edit(()), (), *AGENTS, ())
    world = replay(*used, Wait(11.0), *AGENTS, (), *AGENTS, (), *AGENTS, ())
    assert not world.ranges()
    assert [one.state for one in world._in_label()] == [State.QUARANTINED]
    assert world.condition("Progressing") == ("True", "Quarantined")
    Edit((ONE,)).do(world)
    world.settle()
    assert world.ranges()["one"]["spec"]["offsetBytes"] == 66 << 20, "behind the bytes that are used still"
    assert world.condition("Ready") == ("True", "Ready")
    assert "64Mi that were one's are nobody else's as long as they are used by team/pod on b" in world.said(
        "Progressing"
    )
    Use("b", "one", False).do(world)
    world.settle()
    assert [one.offset_bytes >> 20 for one in world._in_label()] == [66]
    assert world.condition("Progressing") == ("False", "Stable")


def test_by_force_of_a_pool_that_is_deleted_in_use_with_a_node_that_does_not_answer() -> None:
    used = (*UP, Use("b", "one", True), *AGENTS, (), Force(("one",)), (), Node("b", "notready"), DeletePool())
    world = replay(*used)
    assert world.pool() is None
    world.settle()
    assert not world.ranges()
    assert [one.state for one in world._in_label()] == [State.QUARANTINED]
    Node("b", "off").do(world)
    world.settle()
    assert not world._in_label()


def test_by_force_what_was_zeroed_while_its_users_node_was_dead_ends_too() -> None:
    used = (*UP, ForceRange("one"), (), Use("a", "one", True), *AGENTS, (), *AGENTS, Agent("a"), DeleteRange("one"))
    meanwhile = Slow((Node("a", "reboots"), Agent("b")))
    for number in range(4, 6):
        replay(*used, (*[None] * number, meanwhile, None, None, Dies(is_done=True)), (), (*[None] * 4, Late())).settle()


# ---- can it fail? Operators that are wrong, each of which one of the histories above shows --------------------------------

HISTORIES = (
    test_a_status_of_which_nobody_knows_whether_it_was_written,
    test_a_list_that_fails_is_not_the_one_before,
    test_a_new_range_is_not_made_over_one_that_is_still_there,
    test_who_becomes_the_writer_has_not_zeroed_what_it_released_before,
    test_when_all_are_dead_nobody_has_zeroed,
    test_an_old_leader_does_not_delete_the_next_range_of_that_name,
    test_there_are_never_two_writers,
    test_a_pool_that_goes_under_a_look,
    test_who_may_no_longer_is_taken_out,
    test_agents_are_told_of_a_range_whose_maker_was_cut_off,
    test_what_a_dead_node_used_is_void_and_a_pool_that_is_gone_has_a_writer_as_long_as_a_node_lives,
    test_a_writer_that_hears_of_a_range_later_than_of_its_layout,
    test_a_range_that_arrives_late_over_anothers_bytes_goes_and_is_made_anew,
    test_a_range_that_arrives_late_and_was_deleted_and_zeroed_before_is_not_formatted_again,
    test_a_node_that_arrives_late_with_anothers_host_id_gets_one_of_its_own,
    test_a_node_that_arrives_late_is_no_second_writer,
    test_in_a_boot_that_the_operator_has_not_seen_nothing_is_begun,
    test_by_force_a_name_is_free_while_it_is_used_and_its_bytes_are_not,
    test_by_force_of_a_pool_that_is_deleted_in_use_with_a_node_that_does_not_answer,
)


def sends(monkeypatch: pytest.MonkeyPatch, change: Callable[[Call], object]) -> None:
    """The operator's calls, changed."""
    real = World.written_by

    def written_by(self: World, process: Process, call: Call) -> Any:
        change(call)
        return real(self, process, call)

    monkeypatch.setattr(World, "written_by", written_by)


def without_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    sends(monkeypatch, lambda call: call.method == "PATCH" and call.body["metadata"].pop("resourceVersion", None))


def deletes_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    sends(monkeypatch, lambda call: call.method == "DELETE" and call.body.clear())


def does_not_keep_the_layout_of_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(call: Call) -> None:
        if call.plural == "gismonamespaces" and "spec" in (call.body or {}):
            call.body["spec"].pop("layoutVersion")

    sends(monkeypatch, change)


def frees_what_is_not_zeroed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "_is_zeroed", lambda *_: True)


def takes_what_it_sent_for_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A status that was sent once is not sent again, though a time-out said nothing of whether it was written."""
    real = Kube._status

    def status(self: Kube, resource: Any, there: Any, version: str, wanted: Any, said: Any) -> bool:
        sent = self.__dict__.setdefault("sent", {})
        if sent.get(there.metadata.name) == repr((wanted, said)):
            return False
        sent[there.metadata.name] = repr((wanted, said))
        return real(self, resource, there, version, wanted, said)

    monkeypatch.setattr(Kube, "_status", status)


def believes_an_old_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a list fails, it takes the one that it had."""
    real = Kube._list

    def list_(self: Kube, resource: Any, fields: str | None = None) -> Any:
        had = self.__dict__.setdefault("had", {})
        try:
            had[resource.kind] = list(real(self, resource, fields))
        except REQUEST_ERRORS:
            pass
        return had.get(resource.kind, [])

    monkeypatch.setattr(Kube, "_list", list_)


def keeps_what_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = tenants._writer_said
    monkeypatch.setattr(tenants, "_writer_said", lambda seen: real(seen).model_copy(update={"refused": []}))


def does_not_place_around_what_is_quarantined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "_quarantined", lambda _: ())


def keeps_a_host_id_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Kube.observe

    def observe(self: Kube, *arguments: Any) -> Any:
        seen = real(self, *arguments)
        forgotten = {"taken_host_id": None}
        nodes = [one.model_copy(update={"status": one.status.model_copy(update=forgotten)}) for one in seen.nodes]
        return replace(seen, nodes=tuple(nodes))

    monkeypatch.setattr(Kube, "observe", observe)


def makes_a_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(call: Call) -> None:
        if call.method == "POST" and call.plural == "gismonodes" and call.body["spec"]["node"] == "a":
            call.body["spec"]["writer"] = True

    sends(monkeypatch, change)


def does_not_remember_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tenants, "_is_forced", lambda one, pool: pool is not None and "one" in str(pool.metadata.annotations)
    )


def acts_under_any_host_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "check_host_id", lambda *_: None)


def acts_in_any_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "check_seen", lambda *_: None)


def takes_old_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any layout."""
    real = view.of_range
    monkeypatch.setattr(view, "of_range", lambda one: replace(real(one), layout_version=1 << 40))


def frees_what_is_quarantined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "has_released", lambda *_: True)


@pytest.mark.parametrize(
    "mutant",
    [
        without_versions,
        deletes_by_name,
        does_not_keep_the_layout_of_a_range,
        frees_what_is_not_zeroed,
        takes_what_it_sent_for_done,
        believes_an_old_list,
        keeps_what_was_refused,
        does_not_place_around_what_is_quarantined,
        keeps_a_host_id_that_is_taken,
        makes_a_writer,
        does_not_remember_force,
        acts_under_any_host_id,
        acts_in_any_boot,
        takes_old_ranges,
        frees_what_is_quarantined,
    ],
)
def test_an_operator_that_is_wrong_is_found(mutant: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):  # noqa: PT012  (any of them; most often Wrong)
        for history in HISTORIES:
            history()
