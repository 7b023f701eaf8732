"""What failing API servers have found in the operator, each as the shortest history that shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from api_model import Call
from failing_cluster import (
    Agent,
    DeletePool,
    Edit,
    Look,
    Node,
    NotDone,
    Process,
    Slow,
    Takeover,
    Use,
    Wait,
    World,
    Wrong,
    replay,
)

from gismo_kube.connection import REQUEST_ERRORS
from gismo_operator.kube import Kube
from gismo_operator.reconcile import tenants

ONE = ("one", 64, "Delete", ())
TWO = ("two", 64, "Delete", ())
AGENTS = (Agent("a"), Agent("b"), Agent("a"), Agent("b"))
UP = (Edit((ONE,)), (), (), *AGENTS, (), ())
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
    for number in range(4, 8):
        replay(Edit((ONE,)), (*[None] * number, NotDone()), *AGENTS, (*[None] * 4, NotDone(0))).settle()


def test_a_list_that_fails_is_not_the_one_before() -> None:
    for number in range(4):
        meets = (*[None] * number, NotDone(500))
        replay(*UP, Edit((ONE, TWO)), (), Edit((ONE, ("three", 64, "Delete", ()))), meets).settle()


@pytest.mark.xfail(
    reason="an agent that hears of a GismoNode before the range that it counts: the label has that layout's number by then, and the "
    "writer adds a range only with a higher one"
)
def test_a_writer_that_hears_of_a_range_later_than_of_its_layout() -> None:
    replay(*UP, Edit((ONE, TWO)), (), Agent("a", is_late=True)).settle()


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


@pytest.mark.parametrize(
    "mutant",
    [
        without_versions,
        deletes_by_name,
        does_not_keep_the_layout_of_a_range,
        frees_what_is_not_zeroed,
        takes_what_it_sent_for_done,
        believes_an_old_list,
    ],
)
def test_an_operator_that_is_wrong_is_found(mutant: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises(Wrong):  # noqa: PT012  (any of them)
        for history in HISTORIES:
            history()
