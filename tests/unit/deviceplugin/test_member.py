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
from gismo_deviceplugin.pool import member
from gismo_deviceplugin.pool.label import END_BYTES, State
from gismo_deviceplugin.pool.view import RangeView
from pool_rack import MIB, Rack, ranged


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
    assert rack.step("b").ready == ("one",)


def test_a_node_that_is_down_holds_up_nobody(rack: Rack) -> None:
    rack.add("a", "b", "down")
    rack.ask(ranged("one"))
    for _ in range(3):
        for name in ("a", "b"):
            rack.step(name)
    assert rack.reports["a"].ready == rack.reports["b"].ready == ("one",)
    assert rack.step("down").ready == ("one",)


def test_an_agent_that_starts_anew_proves_the_memory_again(rack: Rack) -> None:
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    nonce = rack.nodes["b"].nonce
    rack.start("b")
    rack.step("b")
    assert rack.nodes["b"].nonce != nonce
    assert rack.step("a").ready == ("one",)


def test_a_clone_with_the_right_uuid_does_not_pass(rack: Rack) -> None:
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    clone = rack.memory.parent / "clone"
    shutil.copytree(rack.memory, clone)
    rack.directories["b"] = clone
    rack.start("b")
    rack.settle(2)
    assert rack.reports["a"].same_memory is None, "it may be that b's line comes yet"
    assert rack.reports["a"].ready == ()
    rack.now += member.PATIENCE_S + 1
    rack.settle(1)
    report = rack.reports["a"]
    assert (report.same_memory, report.ready) == (False, ())
    assert report.failures[0].reason == "NotTheSameMemory"
    assert "the directory is not the same memory on both nodes" in report.failures[0].message


def test_another_machine_does_not_pass(rack: Rack) -> None:
    rack.boots["b"] = str(uuid.UUID(int=77))
    rack.add("a", "b")
    rack.ask(ranged("one"))
    rack.settle()
    for name, other in (("a", "b"), ("b", "a")):
        report = rack.reports[name]
        assert (report.same_memory, report.ready) == (False, ())
        assert f"{other} is another machine" in report.failures[0].message


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


def test_the_label_is_believed_more_than_the_api(rack: Rack) -> None:
    """etcd was lost, and the pool made anew: nothing is formatted over what is there, and the conflict is said."""
    rack.add("a")
    rack.ask(ranged("one"))
    rack.settle(1)
    rack.ask(ranged("other", 0, 9))
    report = rack.settle(1)["a"]
    assert [one.reason for one in report.failures] == ["LayoutConflict"]
    assert "one would go without having been zeroed" in report.failures[0].message
    assert not (rack.memory / str(uuid.UUID(int=9))).exists()
    # A stale operator's range over another's bytes.
    rack.ask(ranged("one"), replace(ranged("other", 0, 9), offset_bytes=END_BYTES + 4 * MIB))
    assert "other overlaps the range of one" in rack.settle(1)["a"].failures[0].message
    rack.ask(ranged("one"), ranged("other", 1, 9))
    assert set(rack.settle(1)["a"].ready) == {"one", "other"}


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
    assert deaths > 10
    assert {path.name for path in rack.memory.iterdir()} == {"label", two.store_uuid}
