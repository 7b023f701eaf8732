"""Carving against the kernel of the tests: from any history, killed after any step, it comes to what was asked for, and no other's
bytes move."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dax_kernel import MIB, Device, Kernel, Killed, Region
from gismo_deviceplugin.pool.dax.carver import Carver
from gismo_deviceplugin.pool.dax.region import Span
from gismo_deviceplugin.pool.medium import Unfit

UNITS = 64  # of 2 MiB, in the region
UNIT = 2 * MIB
START = 0x390000000


class Node:
    """A kernel and its agents, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel = Kernel(folder / "sys")
        self.kernel.set_policy("offline")
        self.region = self.kernel.add(Region(0, START, UNITS * UNIT))

    def carver(self) -> Carver:
        return Carver(self.kernel, self.folder / "carving", "boot-1")

    def there(self) -> dict[Span, Device]:
        """What can be opened."""
        return {
            Span(one.ranges[0][0] - START, one.ranges[0][1]): one
            for one in self.region.devices.values()
            if len(one.ranges) == 1 and one.driver == "device_dax"
        }

    def check_apart(self) -> None:
        taken = self.region.taken()
        assert all(start + size <= after for (start, size), (after, _) in pairwise(taken))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def span(first: int, count: int) -> Span:
    return Span(first * UNIT, count * UNIT)


def test_order_of_the_steps(node: Node) -> None:
    wanted = {span(0, 1): "label", span(1, 16): "store"}
    found = node.carver().carve("region0", wanted)
    assert node.there().keys() == found.done.keys() == wanted.keys()
    assert node.kernel.log == [
        "size 0",
        "remove_id dax0.0",
        f"mapping {START:x}-{START + UNIT - 1:x}",
        "create 1",
        "bind dax0.0",
        "new_id dax0.0",
        f"mapping {START + UNIT:x}-{START + 17 * UNIT - 1:x}",
        "bind dax0.1",
        "new_id dax0.1",
    ]
    assert node.carver().carve("region0", wanted) == found
    assert len(node.kernel.log) == 9, "what is there is not touched"
    node.carver().free("region0", {span(1, 16): "store"})
    assert node.kernel.log[9:] == ["unbind dax0.1", "size 0", "remove_id dax0.1", "delete dax0.1"]
    assert node.there().keys() == {span(0, 1)}
    node.carver().free("region0", {span(0, 1): "label"})
    assert [(one.number, one.ranges, one.driver) for one in node.region.devices.values()] == [(0, [], "")]


def test_a_device_of_another_alignment_is_put_right(node: Node) -> None:
    carver = node.carver()
    carver.carve("region0", {span(1, 16): "store"})
    device = node.there()[span(1, 16)]
    device.align = 4096
    node.kernel._render(node.region, device)
    carver.carve("region0", {span(1, 16): "store"})
    assert node.there()[span(1, 16)].align == UNIT


def test_another_tool_between_two_steps(node: Node) -> None:
    """Between look and order a device that was empty gets other bytes, or the bytes are taken: then it is decided anew."""
    write = node.kernel.write
    region = node.region

    def meddled(attribute: Path, text: str) -> None:
        if attribute.name == "mapping" and len(node.kernel.log) < 4:
            device = node.kernel.device(attribute.parent.name)
            device.ranges.append((START + 40 * UNIT, UNIT))
        write(attribute, text)

    node.kernel.write = meddled  # type: ignore[method-assign]
    found = node.carver().carve("region0", {span(1, 16): "store"})
    # The device with two pieces is nobody's that we know: it keeps both, and ours cannot be carved.
    assert found.refused[span(1, 16)].reason == "RangeTaken"
    assert (START + 40 * UNIT, UNIT) in region.devices[0].ranges
    assert found.done == {}


@pytest.mark.parametrize("silent", [True, False])
def test_a_kernel_that_does_not_carve(node: Node, silent: bool) -> None:
    write = node.kernel.write

    def refusing(attribute: Path, text: str) -> None:
        if attribute.name == "mapping":
            node.kernel.log.append("mapping")
            if silent:
                return
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        write(attribute, text)

    node.kernel.write = refusing  # type: ignore[method-assign]
    why = node.carver().carve("region0", {span(1, 16): "store"}).refused[span(1, 16)]
    assert why.reason == "CarvingFailed"
    assert "Map dax0.0" in str(why)
    assert node.kernel.log.count("mapping") == 1, "not again and again"


def test_the_bytes_of_a_store_that_is_gone_are_not_anothers_while_its_device_is_there(node: Node) -> None:
    carver = node.carver()
    carver.carve("region0", {span(1, 16): "old"})
    for wanted in (span(1, 16), span(4, 32)):
        refused = carver.carve("region0", {wanted: "new"}).refused[wanted]
        assert refused.reason == "RangeTaken"
        assert "store old, which is gone" in str(refused)
    assert node.there().keys() == {span(1, 16)}
    carver.free("region0", {span(1, 16): "new"})
    assert node.there().keys() == {span(1, 16)}, "it is not that store's to free"


def test_what_is_in_use_stays(node: Node) -> None:
    carver = node.carver()
    carver.carve("region0", {span(1, 16): "store"})
    node.kernel.opened_by["dax0.0"] = ("process 7 (head)",)
    assert carver.free("region0", {span(1, 16): "store"}).busy == {span(1, 16): "process 7 (head)"}
    assert node.there().keys() == {span(1, 16)}
    assert node.kernel.died == []
    assert [one.store_uuid for one in carver.carved()] == ["store"]


def test_what_the_checkpoint_says(node: Node) -> None:
    carver = node.carver()
    carver.carve("region0", {span(1, 16): "store"})
    file = node.folder / "carving" / "devices.json"
    assert json.loads(file.read_text()) == {
        "format": 1,
        "bootId": "boot-1",
        "devices": [{"region": "region0", "offsetBytes": UNIT, "sizeBytes": 16 * UNIT, "storeUUID": "store"}],
    }
    assert Carver(node.kernel, node.folder / "carving", "boot-2").carved() == frozenset(), "of an earlier boot: void"
    before = file.read_text()
    for text in (before.replace('"format": 1', '"format": 2'), "{", "[]", before.replace("offsetBytes", "o")):
        file.write_text(text)
        with pytest.raises(Unfit) as caught:
            carver.carve("region0", {span(20, 1): "other"})
        assert caught.value.reason == "CheckpointUnreadable"
        assert file.read_text() == text, "what cannot be read is not written over"
    file.unlink()
    assert carver.carve("region0", {span(1, 16): "store"}).refused == {}, "what is exactly the range is taken over"


# ---- random histories ------------------------------------------------------------------------------------------------------

SLOTS = [span(1 + 6 * number, 4) for number in range(8)]  # ranges of Gismo, with gaps
GAPS = [span(5 + 6 * number, 2) for number in range(8)]  # where others may have theirs

ACTIONS = st.one_of(
    st.tuples(st.just("carve"), st.sets(st.integers(0, 7), max_size=5)),
    st.tuples(st.just("free"), st.sets(st.integers(0, 7), max_size=3)),
    st.tuples(st.just("foreign"), st.integers(0, 7), st.booleans()),  # another owner's device, bound or not
    st.tuples(st.just("inside"), st.integers(0, 7)),  # another owner's, in a range of ours
    st.tuples(st.just("create"), st.just(0)),  # an empty device
    st.tuples(st.just("open"), st.integers(0, 7)),
    st.tuples(st.just("close"), st.integers(0, 7)),
    st.tuples(st.just("broken"), st.integers(0, 12)),
)
HISTORY = st.lists(st.tuples(ACTIONS, st.integers(0, 24)), min_size=1, max_size=10)  # and after which order it dies


class History:
    """What was asked for, and what others have."""

    def __init__(self, folder: Path) -> None:
        self.node = Node(folder)
        self.ours: dict[Span, str] = {}
        self.others: dict[str, tuple[list[tuple[int, int]], str]] = {}  # device → bytes, driver

    def do(self, action: tuple[object, ...], dies_after: int) -> None:
        kind, what = action[0], action[1]
        kernel, region = self.node.kernel, self.node.region
        if kind in ("carve", "free"):
            assert isinstance(what, set)
            spans = {SLOTS[number]: f"store-{number}" for number in what}
            if kind == "carve":
                self.ours |= spans
            else:
                self.ours = {one: store for one, store in self.ours.items() if one not in spans}
            self._agent(spans, dies_after, freeing=kind == "free")
        elif kind in ("foreign", "inside"):
            assert isinstance(what, int)
            where = GAPS[what] if kind == "foreign" else Span(SLOTS[what].offset_bytes + UNIT, UNIT)
            taken = [(start - START, size) for start, size in region.taken()]
            if any(where.overlaps(Span(*one)) for one in taken):
                return
            device = kernel._create(region)
            device.ranges = [(START + where.offset_bytes, where.size_bytes)]
            device.driver = "device_dax" if kind == "inside" or action[2] else ""
            kernel._render(region, device)
            self.others[region.device_name(device)] = (list(device.ranges), device.driver)
        elif kind == "create":
            if region.available:
                kernel._render(region, kernel._create(region))
        elif kind == "open":
            assert isinstance(what, int)
            for device in region.devices.values():
                if device.driver == "device_dax" and [Span(a - START, b) for a, b in device.ranges] == [SLOTS[what]]:
                    kernel.opened_by[region.device_name(device)] = (f"process {what}",)
        elif kind == "close":
            kernel.opened_by.clear()
        else:
            kernel.failing.add(f"dax0.{what}")
        self.check()

    def _agent(self, spans: dict[Span, str], dies_after: int, *, freeing: bool) -> None:
        carver = self.node.carver()
        self.node.kernel.left = dies_after or None
        try:
            if freeing:
                busy = carver.free("region0", spans).busy
                self.ours |= {one: spans[one] for one in busy}  # somebody has it open
            else:
                carver.carve("region0", spans)
        except Killed:
            if freeing:
                self.ours |= {one.span: one.store_uuid for one in carver.carved() if one.span in spans}
        finally:
            self.node.kernel.left = None

    def check(self) -> None:
        kernel, region = self.node.kernel, self.node.region
        self.node.check_apart()
        assert kernel.died == [], "somebody lost the memory that he had mapped"
        for name, (ranges, driver) in self.others.items():
            device = kernel.device(name)
            assert (device.ranges, device.driver) == (ranges, driver), name
        known = {one.span for one in self.node.carver().carved()}
        for device in region.devices.values():
            name = region.device_name(device)
            if name not in self.others and device.ranges and device.ranges != [(START, region.size)]:
                assert {Span(start - START, size) for start, size in device.ranges} <= known, "carved, and not noted"

    def settle(self) -> None:
        """The next agent, that nobody kills."""
        self.node.kernel.failing.clear()
        carver = self.node.carver()
        going = {one.span: one.store_uuid for one in carver.carved() if one.span not in self.ours}
        busy = carver.free("region0", going).busy
        result = carver.carve("region0", self.ours)
        blocked = {
            span
            for span in self.ours
            for ranges, _ in self.others.values()
            if span.overlaps(Span(ranges[0][0] - START, ranges[0][1]))
        }
        assert result.refused.keys() == blocked
        mine = {one: device for one, device in self.node.there().items()
                if self.node.region.device_name(device) not in self.others}  # fmt: skip
        assert mine.keys() == (self.ours.keys() - blocked) | busy.keys()
        orders = len(self.node.kernel.log)
        assert carver.carve("region0", self.ours).done == result.done
        assert len(self.node.kernel.log) == orders
        self.check()


@pytest.fixture(scope="module")
def folders() -> Iterator[Iterator[Path]]:
    with tempfile.TemporaryDirectory(prefix="gismo-carve-", dir="/dev/shm") as folder:

        def each() -> Iterator[Path]:
            number = 0
            while True:
                path = Path(folder) / str(number)
                path.mkdir()
                yield path
                shutil.rmtree(path)
                number += 1

        yield each()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(
    history=[
        (("carve", {0, 1}), 0),
        (("carve", {0, 1, 2}), 1),
        (("free", {1}), 0),
        (("foreign", 0, False), 0),  # gets the name of the one that went
    ]
)
@given(history=HISTORY)
def test_any_history_with_deaths_comes_to_what_was_asked_for(
    folders: Iterator[Path], history: list[tuple[Any, int]]
) -> None:
    world = History(next(folders))
    for action, dies_after in history:
        world.do(action, dies_after)
    world.settle()
