"""Several nodes' parts in one emulated pool, with the API between them: it converges, whoever dies; and strangers are found."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import gismo_core
from gismo_deviceplugin.pool import proof
from gismo_deviceplugin.pool.emulated import EmulatedPool
from gismo_deviceplugin.pool.label import END_BYTES, Host, Label, Layout, State
from gismo_deviceplugin.pool.media import Media
from gismo_deviceplugin.pool.member import Member, NotLoaded, Quarantined, Report
from gismo_deviceplugin.pool.state import StateDirectories
from gismo_deviceplugin.pool.view import Emulated, NodeView, PoolView, RangeView
from gismo_deviceplugin.status import status
from gismo_operator.api.v1alpha1 import NodeStatus
from pool_rack import CAPACITY, MIB, Rack, ranged


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    with tempfile.TemporaryDirectory(prefix="gismo-rack-", dir="/dev/shm") as folder:
        memory = Path(folder) / "memory"
        memory.mkdir()
        yield Rack(memory, tmp_path)


def test_every_node_gets_ready_and_opens_the_same_store(rack: Rack) -> None:
    rack.add("a", "b", "c")
    rack.ask(ranged("one"), ranged("two", 1, 2))
    reports = rack.settle()
    for report in reports.values():
        assert (report.ready, report.waiting, report.failures) == (("one", "two"), (), ())
        assert report.same_memory is True
        assert report.layout_version == rack.version
    store = str(uuid.UUID(int=1))
    path = rack.memory / store
    with gismo_core.open(path, state_dir=rack.states / "a" / store, host_id=0) as here:
        handle = here.put(b"made on a")
        with gismo_core.open(path, state_dir=rack.states / "b" / store, host_id=1) as there:
            assert bytes(there.get(handle).data) == b"made on a"
    # At rest nothing changes, not even a byte of the label.
    before = (rack.memory / "label").read_bytes()
    again = dict(rack.reports)
    assert rack.settle(1) == again
    assert (rack.memory / "label").read_bytes() == before


def test_others_wait_for_the_writer_and_say_so(rack: Rack) -> None:
    rack.add("a", "b")
    rack.ask(ranged("one"))
    report = rack.step("b")
    assert (report.ready, report.waiting, report.failures) == ((), ("one",), ())
    assert report.layout_version is None
    rack.step("a")
    report = rack.step("b")
    assert (report.same_memory, report.ready, report.waiting) == (None, (), ("one",)), "the writer has not seen it yet"
    rack.step("a")
    assert rack.step("b").ready == ("one",)


def test_a_node_that_is_down_holds_up_nobody(rack: Rack) -> None:
    rack.add("a", "b", "down")
    rack.ask(ranged("one"))
    for _ in range(3):
        for name in ("a", "b"):
            rack.step(name)
    assert rack.reports["a"].ready == rack.reports["b"].ready == ("one",)
    rack.step("down")
    assert rack.step("a").ready == ("one",)
    assert rack.step("down").ready == ("one",)


def test_an_agent_that_starts_anew_need_not_prove_the_same_memory_again(rack: Rack) -> None:
    """Not even the writer's agent has to be there; and two agents side by side do not contradict one another."""
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    nonce, old = rack.nodes["b"].nonce, rack.members["b"]
    rack.start("b")
    before = (rack.memory / "label").read_bytes()
    assert rack.step("b").ready == ("one",)
    new, rack.members["b"] = rack.members["b"], old
    assert rack.step("b").ready == ("one",)
    rack.members["b"] = new
    assert rack.nodes["b"].nonce == nonce
    assert (rack.memory / "label").read_bytes() == before


def test_a_node_that_is_proven_stays_so_while_another_becomes_the_writer(rack: Rack) -> None:
    rack.add("a", "b", "c")
    rack.ask(ranged("one"))
    rack.settle()
    rack.nodes["a"] = replace(rack.nodes["a"], writer=False, standing="Dead")
    assert rack.step("b").ready == ("one",), "there is no writer"
    rack.nodes["c"] = replace(rack.nodes["c"], writer=True)
    rack.bump()
    assert rack.step("b").same_memory is True
    assert rack.step("c").ready == rack.step("b").ready == ("one",)


def test_a_directory_that_is_not_shared_does_not_pass(rack: Rack) -> None:
    rack.directories["b"] = rack.memory.parent / "own"
    rack.directories["b"].mkdir()
    rack.add("a", "b", "c")
    rack.ask(ranged("one"))
    rack.settle()
    assert rack.reports["b"].waiting == ("one",), "it may be that the writer is late"
    rack.now += proof.PATIENCE_S + 1
    rack.settle(1)
    report = rack.reports["b"]
    assert (report.same_memory, report.ready) == (False, ())
    assert report.failures[0].reason == "NotTheSameMemory"
    assert "a has formatted the pool, and nothing is found here" in report.failures[0].message
    assert "mount one tmpfs, and share it with all nodes" in report.failures[0].message
    assert rack.reports["a"].ready == rack.reports["c"].ready == ("one",)
    del rack.directories["b"]
    rack.settle()
    assert rack.reports["b"].ready == ("one",)


def test_another_label_in_a_directory_of_its_own_does_not_pass(rack: Rack) -> None:
    """As where a pool of that name was there before, on each node for itself."""
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    own = rack.memory.parent / "own"
    own.mkdir()
    file = EmulatedPool(own, CAPACITY).open_label()
    Label(file).format(str(uuid.UUID(int=5)))
    Label(file).write_layout(Layout(1, "rack1"))
    file.close()
    rack.directories["b"] = own
    rack.settle(2)
    assert (rack.reports["b"].same_memory, rack.reports["b"].ready) == (None, ())
    rack.now += proof.PATIENCE_S + 1
    rack.settle(2)
    assert rack.reports["b"].same_memory is False
    assert "and nothing is found here" in rack.reports["b"].failures[0].message
    assert rack.reports["a"].ready == ("one",)


def test_a_clone_with_the_right_uuid_does_not_pass(rack: Rack) -> None:
    """It has all that was in the memory, also that its node was seen there; and it is never offered."""
    rack.add("a", "b", "c")
    rack.ask(ranged("one"))
    rack.settle()
    clone = rack.memory.parent / "clone"
    shutil.copytree(rack.memory, clone)
    rack.directories["b"] = clone
    rack.start("b")
    for _ in range(3):
        rack.settle(1)
        assert (rack.reports["b"].same_memory, rack.reports["b"].ready) == (None, ())
    rack.now += proof.PATIENCE_S + 1
    rack.settle(2)
    report = rack.reports["b"]
    assert (report.same_memory, report.ready) == (False, ())
    assert report.failures[0].reason == "NotTheSameMemory"
    assert (
        "a, which formatted the pool, does not find in it what this node wrote: this is a copy"
        in report.failures[0].message
    )
    assert rack.reports["a"].strangers == ("b",)
    assert rack.reports["a"].ready == rack.reports["c"].ready == ("one",), "those that see the pool's memory go on"
    rack.directories["b"] = rack.memory
    rack.settle()
    assert rack.reports["b"].ready == ("one",)
    assert not rack.reports["a"].strangers


def test_a_clone_that_is_mounted_under_an_agent_does_not_pass(rack: Rack) -> None:
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    clone = rack.memory.parent / "clone"
    shutil.copytree(rack.memory, clone)
    rack.directories["b"] = clone
    assert rack.step("b").ready == ()


def test_another_machine_does_not_pass(rack: Rack) -> None:
    rack.boots["b"] = str(uuid.UUID(int=77))
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    report = rack.reports["b"]
    assert (report.same_memory, report.ready) == (False, ())
    assert "a is another machine" in report.failures[0].message
    assert "take a nodeSelector that selects nodes of one" in report.failures[0].message
    assert (rack.reports["a"].ready, rack.reports["a"].strangers) == (("one",), ("b",))


def test_the_memory_of_another_pool_is_left_alone(rack: Rack) -> None:
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    before = (rack.memory / "label").read_bytes()
    for writer in (True, False):
        mine = NodeView("b", 0, writer=writer, layout_version=9, boot_id=rack.reports["a"].boot_id)
        view = PoolView("rack2", Emulated(rack.memory, CAPACITY), mine, (), (ranged("two", 3, 7),))
        report = Member(StateDirectories(rack.states / "b"), lambda _: (), Media(str(mine.boot_id))).step(view)
        assert [one.reason for one in report.failures] == ["PoolsOverlap"]
        assert "this memory is pool rack1's, as its label says, and cannot be rack2's too" in report.failures[0].message
        assert report.ready == ()
    assert (rack.memory / "label").read_bytes() == before


def test_a_range_is_zeroed_when_nobody_uses_it_and_only_then(rack: Rack) -> None:
    rack.add("a", "b")
    one, two = ranged("one"), ranged("two", 1, 2)
    rack.ask(one, two)
    rack.settle()
    rack.holders["b", "one"] = ("team-a/head",)
    rack.ask(replace(one, state=State.RELEASING), two)
    rack.settle()
    assert rack.reports["b"].in_use == {"one": ("team-a/head",)}
    assert rack.reports["b"].released == frozenset()
    assert rack.reports["a"].released == frozenset(), "the writer waits for the others"
    assert (rack.memory / one.store_uuid).exists()
    assert rack.reports["a"].ready == ("two",)
    del rack.holders["b", "one"]
    rack.settle()
    assert all(report.released == {one.store_uuid} for report in rack.reports.values())
    assert not (rack.memory / one.store_uuid).exists()
    assert not (rack.states / "b" / one.store_uuid).exists()
    assert rack.layout_stores() == {"one": State.ZEROED, "two": State.ACTIVE}
    rack.ask(two)
    rack.settle()
    assert rack.layout_stores() == {"two": State.ACTIVE}
    new = ranged("three", 0, 3)
    rack.ask(two, new)
    assert all(set(report.ready) == {"two", "three"} for report in rack.settle().values())


def test_a_process_without_a_share_is_a_user_too(rack: Rack) -> None:
    rack.add("a", "b")
    one = ranged("one")
    rack.ask(one)
    rack.settle()
    with gismo_core.open(rack.memory / one.store_uuid, state_dir=rack.states / "a" / one.store_uuid):
        rack.ask(replace(one, state=State.RELEASING))
        rack.settle()
        assert rack.reports["b"].in_use["one"][0].startswith(f"process {os.getpid()} ")
        assert (rack.memory / one.store_uuid).exists()
    rack.settle()
    assert not (rack.memory / one.store_uuid).exists()


def test_retained_data_comes_back(rack: Rack) -> None:
    rack.add("a")
    one = ranged("one")
    rack.ask(one)
    rack.settle(1)
    path = rack.memory / one.store_uuid
    with gismo_core.open(path, state_dir=rack.states / "a" / one.store_uuid) as store:
        handle = store.put(b"kept")
    rack.ask(replace(one, state=State.RETAINED))
    assert rack.settle(1)["a"].ready == ()
    rack.ask(one)
    assert rack.settle(1)["a"].ready == ("one",)
    with gismo_core.open(path, state_dir=rack.states / "a" / one.store_uuid) as store:
        assert bytes(store.get(handle).data) == b"kept"


def test_a_pool_that_is_made_anew_with_another_capacity(rack: Rack) -> None:
    one = ranged("one")
    rack.add("a", "b")
    rack.ask(one)
    rack.settle()
    with gismo_core.open(rack.memory / one.store_uuid) as store:
        handle = store.put(b"kept")
        rack.capacity = 2 * CAPACITY
        rack.bump()
        assert rack.step("b").waiting == ("one",), "the writer has not written it yet"
        two = RangeView("two", str(uuid.UUID(int=2)), END_BYTES + CAPACITY, CAPACITY, "hardware")
        rack.ask(one, two)
        assert [set(report.ready) for report in rack.settle().values()] == [{"one", "two"}] * 2
        assert bytes(store.get(handle).data) == b"kept"
    rack.capacity = CAPACITY
    rack.bump()
    (failure,) = rack.step("a").failures
    assert (failure.reason, failure.message) == (
        "LayoutConflict",
        "the range of two reaches into the tail of the pool label",
    )
    rack.capacity = 2 * CAPACITY
    rack.ask(one)
    rack.ask(one, replace(two, state=State.RELEASING))
    rack.settle()
    rack.ask(one)
    rack.settle()
    rack.capacity = CAPACITY
    rack.bump()
    assert [report.ready for report in rack.settle().values()] == [("one",)] * 2
    rack.pool, rack.capacity = "another", 3 * CAPACITY
    assert [one.reason for one in rack.step("a").failures] == ["PoolsOverlap"]


def test_a_copy_does_not_get_another_capacity(rack: Rack) -> None:
    one = ranged("one")
    rack.add("a", "b")
    rack.ask(one)
    rack.settle()
    rack.directories["b"] = Path(shutil.copytree(rack.memory, rack.memory.with_name("copy")))
    rack.capacity = 2 * CAPACITY
    rack.bump()
    assert rack.step("b").waiting == ("one",)
    rack.settle(1)
    rack.now += proof.PATIENCE_S + 1
    (failure,) = rack.settle(1)["b"].failures
    assert failure.reason == "NotTheSameMemory"
    assert "a has written the pool's capacity into the pool label, and another is found here" in failure.message
    assert rack.reports["b"].same_memory is False


def test_the_label_is_believed_more_than_the_api(rack: Rack) -> None:
    """etcd was lost, and the pool made anew: nothing is formatted over what is there, and the conflict is said."""
    rack.add("a")
    rack.ask(ranged("one"))
    rack.settle(1)
    rack.ask(ranged("other", 0, 9))
    report = rack.settle(1)["a"]
    assert [one.reason for one in report.failures] == ["LayoutConflict"]
    message = report.failures[0].message
    assert "one would go without having been zeroed" in message
    assert str(uuid.UUID(int=1)) in message
    assert "empty the directory" in message, "what to do"
    assert not (rack.memory / str(uuid.UUID(int=9))).exists()


def test_a_range_that_came_late_over_anothers_bytes_is_refused_for_ever_and_can_go(rack: Rack) -> None:
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    late = replace(ranged("other", 0, 9), offset_bytes=END_BYTES + 4 * MIB)
    rack.ask(ranged("one"), late)
    reports = rack.settle()
    assert reports["a"].refused == {late.store_uuid}
    assert not reports["a"].failures
    assert reports["a"].ready == reports["b"].ready == ("one",)
    assert reports["b"].waiting == ("other",)
    # Its bytes would be free now; but it was said that it is never taken.
    rack.ask(replace(ranged("one"), state=State.RELEASING), late)
    rack.settle()
    rack.ask(late)
    assert rack.settle()["a"].refused == {late.store_uuid}
    assert rack.layout_stores() == {}
    rack.ask(replace(late, state=State.RELEASING))
    reports = rack.settle()
    assert reports["a"].refused == reports["b"].released == {late.store_uuid}
    rack.ask(replace(late, store_uuid=str(uuid.UUID(int=10))))
    assert all(one.ready == ("other",) for one in rack.settle().values())


def test_what_is_refused_is_said_of_memory_that_is_proven_only(rack: Rack) -> None:
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    clone = rack.memory.parent / "clone"
    shutil.copytree(rack.memory, clone)
    rack.directories["a"] = clone  # the writer's, and it finds there all that b wrote before
    late = replace(ranged("other", 0, 9), offset_bytes=END_BYTES + 4 * MIB)
    rack.ask(ranged("one"), late)
    for seconds in (0.0, proof.PATIENCE_S + 1):
        rack.now += seconds
        report = rack.settle(2)["a"]
        assert report.refused == frozenset()
        assert not report.failures
    assert rack.reports["b"].failures[0].reason == "NotTheSameMemory"
    del rack.directories["a"]
    assert rack.settle()["a"].refused == {late.store_uuid}


def test_one_stranger_or_silent_node_does_not_keep_back_what_is_refused(rack: Rack) -> None:
    rack.add("a", "b", "c")
    rack.ask(ranged("one"))
    rack.settle()
    clone = rack.memory.parent / "clone"
    shutil.copytree(rack.memory, clone)
    rack.directories["b"] = clone
    rack.settle()
    rack.now += proof.PATIENCE_S + 1
    late = replace(ranged("other", 0, 9), offset_bytes=END_BYTES + 4 * MIB)
    rack.ask(ranged("one"), late)
    report = rack.settle()["a"]
    assert report.strangers == ("b",)
    assert report.refused == {late.store_uuid}
    # The writer's node boots: its nonce is another, and there is nobody up who could find it.
    (rack.states / "a" / "nonce-rack1.json").unlink()
    assert rack.step("a").refused == frozenset(), "those that are up are waited for"
    for name in ("b", "c"):
        rack.nodes[name] = replace(rack.nodes[name], standing="Suspect")
    assert rack.step("a").refused == {late.store_uuid}


def test_a_copy_from_before_a_node_joined_does_not_pass(rack: Rack) -> None:
    """Its label has no host id of that node: so it cannot write there, and the writer cannot miss what it wrote."""
    rack.add("a")
    rack.ask(ranged("one"))
    rack.settle()
    rack.directories["b"] = rack.memory.parent / "clone"
    shutil.copytree(rack.memory, rack.directories["b"])
    rack.add("b")
    before = (rack.directories["b"] / "label").read_bytes()
    rack.settle()
    assert (rack.reports["b"].same_memory, rack.reports["b"].ready) == (None, ())
    rack.now += proof.PATIENCE_S + 1
    report = rack.settle(1)["b"]
    assert (report.same_memory, report.ready) == (False, ())
    assert "a has written layout 3 into the pool label, and 2 is found here, as in a copy" in report.failures[0].message
    assert (rack.directories["b"] / "label").read_bytes() == before
    del rack.directories["b"]
    assert rack.settle()["b"].ready == ("one",)


def test_a_host_id_is_taken_in_the_label_of_the_pool_only(rack: Rack) -> None:
    """As in the memory that another cluster made for a pool of that name."""
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    own = rack.memory.parent / "own"
    own.mkdir()
    file = EmulatedPool(own, CAPACITY).open_label()
    Label(file).format(str(uuid.UUID(int=5)))
    Label(file).write_layout(Layout(1, "rack1", hosts=(Host(0, "x", 1), Host(1, "y", 1))))
    file.close()
    rack.directories["b"] = own
    for _ in range(3):
        report = rack.settle(1)["b"]
        assert (report.taken_host_id, report.same_memory, report.ready) == (None, None, ())
    rack.now += proof.PATIENCE_S + 1
    report = rack.settle(1)["b"]
    assert (report.taken_host_id, report.same_memory) == (None, False)
    assert report.failures[0].reason == "NotTheSameMemory"


def test_a_layout_that_starts_anew_is_told_which_one_there_is(rack: Rack) -> None:
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    rack.ask(replace(ranged("one"), state=State.RELEASING))
    rack.settle()
    rack.ask()  # all is given back
    rack.settle()
    there = rack.version
    rack.version = 0
    rack.ask(ranged("one", number=7))
    reports = rack.settle()
    for name in ("a", "b"):
        assert reports[name].layout_version == there  # both say where the label is
    assert [one.reason for one in reports["a"].failures] == ["LayoutConflict"]
    rack.version = there
    rack.ranges = {}
    rack.ask(ranged("one", number=8))
    assert all(report.ready == ("one",) for report in rack.settle().values())


def test_a_range_whose_layout_was_heard_of_before_gets_in(rack: Rack) -> None:
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    one, two = ranged("one"), ranged("two", 1, 2)
    known = dict(rack.ranges)
    rack.ask(one, two)
    new, rack.ranges = rack.ranges, known
    rack.step("a")
    assert rack.reports["a"].layout_version == rack.version
    rack.ranges = new
    assert all(set(report.ready) == {"one", "two"} for report in rack.settle().values())
    # And one that is older than a layout that is known is not taken: it may be gone by now.
    rack.ask(one, two, ranged("three", 2, 3))
    old = replace(rack.ranges["three"], layout_version=rack.version - 2)
    rack.ranges["three"] = old
    rack.settle()
    assert rack.reports["a"].refused == {old.store_uuid}


def test_two_nodes_never_act_under_one_host_id(rack: Rack) -> None:
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    rack.add("late")
    rack.nodes["late"] = replace(rack.nodes["late"], host_id=rack.nodes["b"].host_id)
    reports = rack.settle()
    assert reports["a"].ready == reports["b"].ready == ("one",)
    report = reports["late"]
    assert (report.taken_host_id, report.nonce, report.ready, report.layout_version) == (1, None, (), None)
    assert [one.reason for one in report.failures] == ["HostIdTaken"]
    assert "host id 1 is that of b in the pool label" in report.failures[0].message
    assert StateDirectories(rack.states / "late").stores() == frozenset()
    rack.nodes["late"] = replace(rack.nodes["late"], host_id=2)
    rack.bump()
    report = rack.settle()["late"]
    assert (report.taken_host_id, report.ready) == (None, ("one",))


def test_nothing_is_done_in_a_boot_that_the_operator_has_not_seen(rack: Rack) -> None:
    rack.add("a", "b")
    rack.ask(ranged("one"))
    report = rack.step_once("a")
    assert (report.layout_version, report.ready, report.failures) == (None, (), ())
    assert not any((rack.memory / "label").read_bytes()), "not even the writer writes"
    rack.settle()
    rack.nodes["b"] = replace(rack.nodes["b"], standing="Dead")
    assert rack.step_once("b").ready == ()
    rack.nodes["b"] = replace(rack.nodes["b"], standing="Active")
    assert rack.step_once("b").ready == ("one",)


def test_what_was_given_up_by_force_is_kept_from_use_until_the_last_user_has_gone(rack: Rack) -> None:
    rack.add("a", "b")
    one = ranged("one")
    rack.ask(one)
    rack.settle()
    rack.holders["b", "one"] = ("team-a/head",)
    rack.ask(replace(one, state=State.RELEASING))
    rack.settle()
    rack.ask(replace(one, state=State.QUARANTINED))
    reports = rack.settle()
    kept = Quarantined("one", one.store_uuid, one.offset_bytes, one.size_bytes)
    assert reports["a"].quarantined == (kept,)
    assert reports["b"].quarantined == (replace(kept, holders=("team-a/head",)),)
    assert (reports["a"].released, reports["b"].released) == (frozenset(), frozenset())
    rack.ask()  # its object goes
    rack.start("a")
    assert rack.settle()["a"].quarantined == (kept,)
    assert rack.layout_stores() == {"one": State.QUARANTINED}
    assert (rack.memory / one.store_uuid).exists()
    assert (rack.states / "b" / one.store_uuid).exists(), "its processes meet there"
    # An operator that does not know of it yet gives its bytes to another.
    over = ranged("two", 0, 2)
    rack.ask(over)
    assert rack.settle()["a"].refused == {over.store_uuid}
    rack.ask(replace(over, state=State.RELEASING))
    rack.settle()
    rack.ask()
    del rack.holders["b", "one"]
    reports = rack.settle()
    assert rack.layout_stores() == {}
    assert reports["a"].quarantined == reports["b"].quarantined == ()
    assert not (rack.memory / one.store_uuid).exists()
    assert not (rack.states / "b" / one.store_uuid).exists()
    rack.ask(ranged("three", 0, 3))
    assert all(report.ready == ("three",) for report in rack.settle().values())


def test_a_process_without_a_share_keeps_what_was_given_up_from_use_too(rack: Rack) -> None:
    rack.add("a")
    one = ranged("one")
    rack.ask(one)
    rack.settle()
    with gismo_core.open(rack.memory / one.store_uuid, state_dir=rack.states / "a" / one.store_uuid):
        rack.ask(replace(one, state=State.QUARANTINED))
        rack.settle()
        rack.ask()
        report = rack.settle()["a"]
        assert report.quarantined[0].holders[0].startswith(f"process {os.getpid()} ")
        assert (rack.memory / one.store_uuid).exists()
    rack.settle()
    assert not (rack.memory / one.store_uuid).exists()
    assert rack.layout_stores() == {}


def test_what_the_node_cannot_be_used_for_is_said(rack: Rack) -> None:
    rack.add("a")
    rack.ask(ranged("one"))
    rack.directories["a"] = rack.memory / "none"
    report = rack.step("a")
    assert [one.reason for one in report.failures] == ["MemoryUnfit"]
    assert "mount one tmpfs there" in report.failures[0].message


class Killed(BaseException):
    """The agent is dead."""


def test_killed_at_any_change_it_is_finished_by_the_next(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call that changes the memory or a file is counted; the writer dies at each of them in turn, before or after it."""
    left: list[int] = []

    def deadly(module: object, name: str) -> None:
        real = getattr(module, name)

        def call(*arguments: object, **named: object) -> object:
            if left:
                left[0] -= 1
                if left[0] == 0:
                    raise Killed
            done = real(*arguments, **named)
            if left:
                left[0] -= 1
                if left[0] == 0:
                    raise Killed
            return done

        monkeypatch.setattr(module, name, call)

    from gismo_deviceplugin.pool.emulated import LabelFile

    deadly(LabelFile, "write")
    deadly(gismo_core, "format")
    for name in ("rename", "unlink", "mkdir", "chmod", "write_text"):
        deadly(Path, name)
    deadly(os, "ftruncate")
    deadly(shutil, "rmtree")
    one, two = ranged("one"), ranged("two", 1, 2)

    def live(*ranges: RangeView) -> int:
        """Until it is done, dying at the 1st, 2nd, 3rd … change; how often."""
        rack.ask(*ranges)
        deaths = 0
        while True:
            rack.start("a")
            left[:] = [deaths + 1]
            try:
                for _ in range(3):
                    rack.step("a")
                    rack.step("b")
            except Killed:
                deaths += 1
                left.clear()
                continue
            left.clear()
            return deaths

    rack.add("a", "b")
    deaths = live(one, two)
    assert set(rack.settle()["b"].ready) == {"one", "two"}
    deaths += live(replace(one, state=State.RELEASING), two)
    rack.settle()
    assert not (rack.memory / one.store_uuid).exists()
    deaths += live(two)
    assert rack.layout_stores() == {"two": State.ACTIVE}
    assert rack.settle()["a"].ready == ("two",)
    three = ranged("three", 0, 3)
    deaths += live(two, three)
    rack.holders["b", "three"] = ("team/pod",)
    deaths += live(two, replace(three, state=State.QUARANTINED))
    deaths += live(two)
    assert rack.layout_stores() == {"two": State.ACTIVE, "three": State.QUARANTINED}
    del rack.holders["b", "three"]
    deaths += live(two)
    assert rack.layout_stores() == {"two": State.ACTIVE}
    assert deaths > 20
    assert {path.name for path in rack.memory.iterdir()} == {"label", two.store_uuid}


def test_who_runs_ray_without_gismo_is_said_as_the_api_has_it() -> None:
    found = tuple(
        NotLoaded("team-a", f"team-a/ray-{number}", "NotLoaded", "take PythonPath " * 100) for number in range(40)
    )
    report = replace(Report(3, 1 << 30, "boot", "nonce", True, ready=("team-a",)), not_loaded=found)
    said = NodeStatus.model_validate(status(report, {}, "2026-01-01T00:00:00Z", 1))
    assert [one.holder for one in said.not_loaded] == [f"team-a/ray-{number}" for number in range(32)]
    assert {one.type: one.status.value for one in said.conditions} == {"Ready": "True", "SameMemory": "True"}
    assert said.failures == []
