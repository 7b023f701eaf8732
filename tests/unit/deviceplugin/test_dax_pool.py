"""Several nodes' parts in one pool of CXL memory: it converges, whoever dies; and what is not as it should be is said and left alone."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import dax_kernel
import gismo_core
from dax_rack import SIZE, DaxRack
from gismo_deviceplugin.pool import proof
from gismo_deviceplugin.pool.dax.pool import DaxPool
from gismo_deviceplugin.pool.dax.region import Match
from gismo_deviceplugin.pool.dax.wipe import wipe
from gismo_deviceplugin.pool.label import END_BYTES, State
from gismo_deviceplugin.pool.medium import Unfit
from pool_rack import MIB, ranged


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[DaxRack]:
    with tempfile.TemporaryDirectory(prefix="gismo-dax-", dir="/dev/shm") as folder:
        for name in ("memory", "hosts"):
            (Path(folder) / name).mkdir()
        yield DaxRack(Path(folder) / "memory", Path(folder) / "hosts")


ONE, TWO = ranged("one"), ranged("two", 1, 2)
LABEL = {(0, END_BYTES), (SIZE - END_BYTES, END_BYTES)}


def span(name: str) -> tuple[int, int]:
    one = {"one": ONE, "two": TWO}[name]
    return one.offset_bytes, one.size_bytes


def blank(rack: DaxRack, name: str) -> bool:
    offset, size = span(name)
    return not any((rack.memory / f"{offset}-{size}").read_bytes())


def test_every_node_carves_the_same_ranges_and_opens_the_same_store(rack: DaxRack) -> None:
    rack.add("a", "b", "node-c")
    rack.ask(ONE, TWO)
    reports = rack.settle()
    for name, report in reports.items():
        assert (report.ready, report.waiting, report.failures) == (("one", "two"), (), ()), name
        assert report.same_memory is True
        assert report.capacity_bytes == SIZE - 2 * END_BYTES
        assert set(rack.spans(name).values()) == {span("one"), span("two"), *LABEL}
    starts = {kernel.regions[0].start for kernel in rack.kernels.values()}
    assert len(starts) == 3, "each has its own physical addresses"
    with gismo_core.open(
        rack.node("a", ONE.store_uuid), state_dir=rack.states / "a" / ONE.store_uuid, host_id=0
    ) as here:
        handle = here.put(b"made on a")
        there = gismo_core.open(rack.node("b", ONE.store_uuid), state_dir=rack.states / "b" / ONE.store_uuid, host_id=1)
        with there:
            assert bytes(there.get(handle).data) == b"made on a"
    folder = rack.node("a", ONE.store_uuid).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in folder.iterdir()} == {ONE.store_uuid, TWO.store_uuid}
    # At rest nothing is written, neither into sysfs nor into the memory.
    logs = {name: len(kernel.log) for name, kernel in rack.kernels.items()}
    head = (rack.memory / f"0-{END_BYTES}").read_bytes()
    assert rack.settle(1) == reports
    assert (rack.memory / f"0-{END_BYTES}").read_bytes() == head
    for name, kernel in rack.kernels.items():
        assert not [order for order in kernel.log[logs[name] :] if "new-" not in order], name


def test_a_range_is_zeroed_when_nobody_uses_it_and_only_then(rack: DaxRack) -> None:
    rack.add("a", "b")
    rack.ask(ONE, TWO)
    rack.settle()
    with gismo_core.open(
        rack.node("a", ONE.store_uuid), state_dir=rack.states / "a" / ONE.store_uuid, host_id=0
    ) as store:
        store.put(os.urandom(100_000))
    rack.holders["b", "one"] = ("team-a/head",)
    rack.ask(replace(ONE, state=State.RELEASING), TWO)
    rack.settle()
    assert rack.reports["a"].released == frozenset(), "the writer waits for the others"
    assert rack.reports["b"].released == frozenset()
    assert rack.node("b", ONE.store_uuid).exists()
    assert not rack.node("a", ONE.store_uuid).exists(), "no container of a can start with it any more"
    assert span("one") in rack.spans("b").values()
    del rack.holders["b", "one"]
    # A process that has no share, and has it open: it would die of SIGBUS.
    (device,) = (name for name, where in rack.spans("b").items() if where == span("one"))
    rack.kernels["b"].opened_by[device] = ("process 7 (peek)",)
    rack.settle()
    assert rack.reports["b"].in_use == {"one": ("process 7 (peek)",)}
    assert not blank(rack, "one")
    del rack.kernels["b"].opened_by[device]
    rack.settle()
    assert all(report.released == {ONE.store_uuid} for report in rack.reports.values())
    assert blank(rack, "one")
    orders = len(rack.kernels["a"].log)
    rack.settle(1)
    carving = [order for order in rack.kernels["a"].log[orders:] if order.startswith(("create", "mapping"))]
    assert carving == [], "it is zeroed once"
    rack.nodes["b"] = replace(rack.nodes["b"], released=frozenset())
    assert rack.step("a").released == {ONE.store_uuid}, "what is zeroed stays so, whatever others say afterwards"
    rack.settle(1)
    for name in ("a", "b"):
        assert set(rack.spans(name).values()) == {span("two"), *LABEL}
        assert not rack.node(name, ONE.store_uuid).exists()
        assert rack.kernels[name].died == []
    rack.ask(TWO)
    rack.settle()
    # Its bytes to another tenant: another path, and nothing of the one before in it.
    new = ranged("three", 0, 3)
    rack.ask(TWO, new)
    assert all(set(report.ready) == {"two", "three"} for report in rack.settle().values())
    assert rack.node("b", new.store_uuid).exists()


@pytest.mark.parametrize("where", ["a", "b"])
def test_after_a_reboot_it_is_carved_again_and_the_data_are_there(rack: DaxRack, where: str) -> None:
    rack.add("a", "b")
    rack.ask(ONE, replace(TWO, state=State.RETAINED))
    rack.settle()
    path = rack.node(where, ONE.store_uuid)
    with gismo_core.open(path, state_dir=rack.states / "a" / ONE.store_uuid, host_id=0) as store:
        handle = store.put(b"kept")
    rack.reboot(where)
    assert not path.exists()
    rack.settle()
    assert all(report.ready == ("one",) for report in rack.reports.values())
    with gismo_core.open(path, state_dir=rack.states / "a" / ONE.store_uuid, host_id=0) as store:
        assert bytes(store.get(handle).data) == b"kept"


def test_a_store_that_is_gone_is_not_made_anew(rack: DaxRack) -> None:
    rack.add("a", "b")
    rack.ask(ONE)
    rack.settle()
    offset, size = span("one")
    with (rack.memory / f"{offset}-{size}").open("r+b") as file:
        file.write(bytes(size))
    rack.settle(1)
    for name in ("a", "b"):
        (failure,) = rack.reports[name].failures
        assert (failure.namespace, failure.reason) == ("one", "StoreLost")
        assert "None is made in its place" in failure.message
    assert blank(rack, "one")


def test_memory_that_holds_something_is_not_written_over(rack: DaxRack) -> None:
    end = rack.memory / f"0-{END_BYTES}"
    end.write_bytes(b"famfs" + bytes(END_BYTES - 5))
    rack.add("a")
    rack.ask(ONE)
    (failure,) = rack.settle(2)["a"].failures
    assert (failure.namespace, failure.reason) == ("", "HoldsOtherData")
    assert "66616d6673" in failure.message
    assert end.read_bytes()[:5] == b"famfs"
    memory = rack.media("a")(rack.source("a"))
    assert isinstance(memory, DaxPool)
    with pytest.raises(Unfit, match="that was not region0: nothing was changed"):
        wipe(memory, lambda question: "region1")
    assert end.read_bytes()[:5] == b"famfs"
    wipe(memory, lambda question: "region0\n")
    assert not any(end.read_bytes())
    assert rack.settle(2)["a"].ready == ("one",)
    before = end.read_bytes()
    with pytest.raises(Unfit, match="holds the pool rack1 with one: delete the GismoPool"):
        wipe(memory, lambda question: "region0")
    assert end.read_bytes() == before
    # The pool is gone, its label stays: a pool of another name gets the memory only by hand.
    rack.ask(replace(ONE, state=State.RELEASING))
    rack.settle(2)
    rack.ask()
    rack.settle(1)
    rack.pool = "rack2"
    rack.ask(TWO)
    (failure,) = rack.settle(1)["a"].failures
    assert failure.reason == "PoolsOverlap"
    wipe(memory, lambda question: "region0")
    assert rack.settle(2)["a"].ready == ("two",)


@pytest.mark.parametrize("written", [1, 8, 20, 100])
def test_a_label_whose_formatting_was_cut_off_is_begun_again(rack: DaxRack, written: int) -> None:
    """A part of the identity at the tail, which is written first, is no other's data."""
    rack.add("a")
    rack.ask(ONE)
    rack.settle(1)
    ends = [rack.memory / f"{offset}-{size}" for offset, size in sorted(LABEL)]
    identity = ends[1].read_bytes()[:written]
    ends[0].write_bytes(bytes(END_BYTES))
    ends[1].write_bytes(identity + bytes(END_BYTES - written))
    rack.start("a")
    report = rack.settle(2)["a"]
    # What the store's range holds is the same store, so it is found again.
    assert report.ready == ("one",), report


def test_a_store_of_somebody_in_a_range_is_not_formatted_over(rack: DaxRack) -> None:
    offset, size = span("one")
    file = rack.memory / f"{offset}-{size}"
    gismo_core.format(file, size=size, store_uuid=uuid.UUID(int=77))
    rack.add("a")
    rack.ask(ONE)
    (failure,) = rack.settle(2)["a"].failures
    assert (failure.namespace, failure.reason) == ("one", "HoldsOtherData")
    assert gismo_core.probe(file).store_uuid == uuid.UUID(int=77)


def test_a_clone_with_the_right_uuid_does_not_pass(rack: DaxRack) -> None:
    """It has all that was in the memory, also that its node was seen there; and it is never offered."""
    rack.add("a", "b", "c")
    rack.ask(ONE)
    rack.settle()
    assert "one" in rack.reports["b"].ready
    clone = rack.memory.parent / "clone"
    shutil.copytree(rack.memory, clone)
    # Somebody makes the region of b anew, without a reboot, and it leads elsewhere.
    kernel = rack.kernels["b"]
    kernel.remove_region(0)
    kernel.memory = clone
    kernel.add(rack.region("b"))
    for _ in range(3):
        rack.settle(1)
        assert rack.reports["b"].same_memory is None
        assert not rack.reports["b"].ready
    rack.now += proof.PATIENCE_S + 1
    rack.settle(2)
    report = rack.reports["b"]
    assert (report.same_memory, report.ready, report.capacity_bytes) == (False, (), None)
    (failure,) = report.failures
    assert failure.reason == "NotTheSameMemory"
    assert "a, which formatted the pool, does not find in it what this node wrote: this is a copy" in failure.message
    assert "the region is not the same memory on both nodes" in failure.message
    assert "tmpfs" not in failure.message
    assert rack.reports["a"].strangers == ("b",)
    assert rack.reports["a"].ready == rack.reports["c"].ready == ("one",)


def test_a_copy_from_before_a_node_joined_does_not_pass(rack: DaxRack) -> None:
    rack.add("a")
    rack.ask(ONE)
    rack.settle(2)
    rack.ends["b"] = rack.memory.parent / "clone"
    shutil.copytree(rack.memory, rack.ends["b"])
    rack.add("b")
    rack.settle(2)
    rack.now += proof.PATIENCE_S + 1
    rack.settle(1)
    (failure,) = rack.reports["b"].failures
    assert failure.reason == "NotTheSameMemory"
    assert "is found here, as in a copy: the region is not the same memory on both nodes" in failure.message
    assert rack.reports["a"].ready == ("one",)


def test_what_was_given_up_by_force_keeps_its_device_until_the_last_user_has_gone(rack: DaxRack) -> None:
    rack.add("a", "b")
    rack.ask(ONE, TWO)
    rack.settle()
    rack.holders["b", "one"] = ("team-a/head",)
    rack.ask(replace(ONE, state=State.QUARANTINED), TWO)
    rack.settle()
    new = ranged("one", 2, 3)
    rack.ask(TWO, new)
    rack.names[new.store_uuid] = "one anew"
    rack.settle()
    for name in ("a", "b"):
        assert [one.store_uuid for one in rack.reports[name].quarantined] == [ONE.store_uuid]
        assert rack.reports[name].ready == ("two", "one")
    assert rack.reports["b"].quarantined[0].holders == ("team-a/head",)
    assert span("one") in rack.spans("b").values()
    assert span("one") not in rack.spans("a").values()
    assert not blank(rack, "one")
    # No share any more, but a process: the device stays.
    del rack.holders["b", "one"]
    (device,) = (name for name, where in rack.spans("b").items() if where == span("one"))
    rack.kernels["b"].opened_by[device] = ("process 7 (peek)",)
    rack.settle()
    assert rack.reports["b"].quarantined[0].holders == ("process 7 (peek)",)
    assert not blank(rack, "one")
    assert rack.kernels["b"].died == []
    del rack.kernels["b"].opened_by[device]
    rack.settle()
    assert blank(rack, "one")
    assert span("one") not in rack.spans("b").values()
    rack.bump()
    rack.settle()
    assert not any(report.quarantined for report in rack.reports.values())
    third = ranged("three", 0, 4)
    rack.ask(TWO, new, third)
    assert all(set(report.ready) == {"one", "two", "three"} for report in rack.settle().values())


def test_a_region_of_another_size_is_another_memory(rack: DaxRack) -> None:
    rack.match = Match(region="region0")
    rack.add("a", "b")
    rack.ask(ONE)
    kernel = rack.kernel("b")
    kernel.remove_region(0)
    kernel.add(rack.region("b", SIZE // 2))
    rack.settle()
    assert rack.reports["a"].ready == ("one",)
    (failure,) = rack.reports["b"].failures
    assert failure.reason == "NotTheSameMemory"
    assert f"formatted with {SIZE} bytes, and {SIZE // 2} are seen here" in failure.message
    assert rack.reports["b"].capacity_bytes is None, "the pool's is not to become that of another memory"


def test_other_owners_are_left_alone(rack: DaxRack) -> None:
    """One who has bytes that nobody needs, one who has bytes of a range, one with two pieces, one without driver."""
    rack.add("a")
    kernel = rack.kernel("a")
    region = kernel.regions[0]
    region.devices[0].ranges = [(region.start + 100 * MIB, 50 * MIB), (region.start + 200 * MIB, 2 * MIB)]
    kernel.known.add("dax0.0")
    kernel._probe(region, region.devices[0])
    other = kernel._create(region)
    other.ranges = [(region.start + ONE.offset_bytes + 30 * MIB, 4 * MIB)]
    kernel._render(region, other)
    before = {name: list(one.ranges) for name, one in region.devices.items()}
    rack.ask(ONE, TWO, ranged("three", 8, 3))
    report = rack.settle(3)["a"]
    assert report.ready == ("three",)
    assert {(one.namespace, one.reason) for one in report.failures} == {("one", "RangeTaken"), ("two", "RangeTaken")}
    assert "are those of dax0.1" in report.failures[0].message
    assert {name: list(region.devices[name].ranges) for name in before} == before
    assert region.devices[0].driver == "device_dax"
    assert region.devices[1].driver == ""


def test_the_whole_region_in_use_is_not_taken_away(rack: DaxRack) -> None:
    rack.add("a")
    kernel = rack.kernel("a")
    region = kernel.regions[0]
    kernel.known.add("dax0.0")
    kernel._probe(region, region.devices[0])
    kernel.opened_by["dax0.0"] = ("process 42 (famfs)",)
    rack.ask(ONE)
    (failure,) = rack.settle(1)["a"].failures
    assert failure.reason == "RegionInUse"
    assert "dax0.0 is open in process 42 (famfs)" in failure.message
    assert region.devices[0].ranges == [(region.start, SIZE)]
    assert kernel.died == []
    kernel.opened_by.clear()
    assert rack.settle(2)["a"].ready == ("one",)


def test_a_device_that_takes_no_driver_is_replaced(rack: DaxRack) -> None:
    """After a probe that failed half way, Linux refuses that device for ever ("dynamic-dax with pre-populated page map")."""
    rack.add("a")
    rack.kernel("a").failing |= {"dax0.0", "dax0.2"}
    rack.ask(ONE)
    assert rack.settle(2)["a"].ready == ("one",)


def test_what_a_node_that_was_dead_to_the_others_has_left_is_freed(rack: DaxRack) -> None:
    """Its range was released without it, as of one that is known to be dead; it was not dead."""
    rack.add("a", "b")
    rack.ask(ONE)
    rack.settle()
    new = ranged("new", 0, 9)
    # As the writer would have left the label, had b been dead.
    rack.nodes["b"] = replace(rack.nodes["b"], standing="Dead")
    rack.ask(replace(ONE, state=State.RELEASING))
    for _ in range(3):
        rack.step("a")
    rack.ask()
    rack.step("a")
    rack.ask(new)
    for _ in range(2):
        rack.step("a")
    assert rack.reports["a"].ready == ("new",)
    rack.nodes["b"] = replace(rack.nodes["b"], standing="Active")
    (device,) = (name for name, where in rack.spans("b").items() if where == span("one"))
    for opened in (True, False):
        rack.kernels["b"].opened_by = {device: ("process 7 (head)",)} if opened else {}
        rack.holders = {} if opened else {("b", "one"): ("team-a/head",)}
        rack.start("b")
        rack.settle(2)
        assert rack.node("b", ONE.store_uuid).exists(), "somebody has it open, or may open it"
        # A container that may open this device must not find the new tenant in it.
        assert not rack.node("b", new.store_uuid).exists()
        (failure,) = rack.reports["b"].failures
        assert (failure.namespace, failure.reason) == ("new", "RangeTaken")
    rack.holders = {}
    rack.settle(3)
    assert rack.reports["b"].ready == ("new",)
    assert not rack.node("b", ONE.store_uuid).exists()
    assert rack.kernels["b"].died == []


def test_a_node_that_became_another_devices_goes(rack: DaxRack) -> None:
    """The region was made anew without a reboot: a number is another device's by now, and a path must not lead to it."""
    rack.add("a")
    rack.ask(ONE, TWO)
    rack.settle(2)
    kernel = rack.kernels["a"]
    kernel.remove_region(0)
    kernel.add(rack.region("a"))
    rack.ask(replace(ONE, state=State.RETAINED), TWO)
    assert rack.settle(2)["a"].ready == ("two",)
    assert not rack.node("a", ONE.store_uuid).exists()
    two = rack.node("a", TWO.store_uuid)
    (device,) = (name for name, where in rack.spans("a").items() if where == span("two"))
    assert kernel.nodes[two] == (252, kernel.device(device).minor)


@pytest.mark.parametrize("coherence", ["hardware", "software"])
def test_killed_at_any_change_it_is_finished_by_the_next(rack: DaxRack, coherence: str) -> None:
    """Every order to the kernel is counted; an agent dies at each of them in turn, before or after it."""
    one, two = replace(ONE, coherence=coherence), replace(TWO, coherence=coherence)
    rack.add("a", "b")

    def live(*ranges: object) -> int:
        rack.ask(*ranges)  # type: ignore[arg-type]
        deaths = 0
        for name in ("a", "b"):
            kernel = rack.kernel(name)
            at = 1
            while True:
                rack.start(name)
                kernel.left = at
                try:
                    for _ in range(3):
                        rack.step(name)
                        other = "b" if name == "a" else "a"
                        rack.step(other)
                except dax_kernel.Killed:
                    deaths += 1
                    at += 3
                    kernel.left = None
                    check()
                    continue
                kernel.left = None
                break
        rack.settle(2)
        return deaths

    def check() -> None:
        for name, kernel in rack.kernels.items():
            region = kernel.regions[0]
            taken = region.taken()
            assert all(start + size <= after for (start, size), (after, _) in pairwise(taken))
            assert kernel.died == []
            for path, number in kernel.nodes.items():
                if path.name in (one.store_uuid, two.store_uuid):
                    owner = next((each for each in region.devices.values() if (252, each.minor) == number), None)
                    wanted = one if path.name == one.store_uuid else two
                    assert owner is not None, (name, path)
                    assert owner.ranges in ([(region.start + wanted.offset_bytes, wanted.size_bytes)],), (name, path)

    deaths = live(one, two)
    assert all(set(report.ready) == {"one", "two"} for report in rack.reports.values())
    deaths += live(replace(one, state=State.RELEASING), two)
    assert blank(rack, "one")
    deaths += live(two)
    assert rack.settle()["a"].ready == ("two",)
    for name in ("a", "b"):
        assert set(rack.spans(name).values()) == {span("two"), *LABEL}
        assert {path.name for path in rack.kernels[name].nodes} == {two.store_uuid}
    assert deaths > 20
