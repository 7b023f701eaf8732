"""The pool label: whatever is torn, the newest whole layout holds; and a layout that must not follow is refused."""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gismo_deviceplugin.pool import records
from gismo_deviceplugin.pool.label import (
    END_BYTES,
    MAX_HOSTS,
    Host,
    Identity,
    Label,
    LabelError,
    LabelRange,
    Layout,
    NodeLine,
    NotASuccessor,
    Refused,
    State,
)
from gismo_deviceplugin.pool.records import TooNew

SIZE = 64 << 20
MIB = 1 << 20


class PowerCut(Exception):
    """The writer is dead."""


class Bytes:
    """A memory of which only the two ends are kept, and whose power fails after so many bytes."""

    def __init__(self, size_bytes: int = SIZE) -> None:
        self.size_bytes = size_bytes
        self.ends = {0: bytearray(END_BYTES), size_bytes - END_BYTES: bytearray(END_BYTES)}
        self.left: int | None = None

    def _place(self, offset: int, length: int) -> tuple[bytearray, int]:
        start = 0 if offset < END_BYTES else self.size_bytes - END_BYTES
        assert start <= offset <= offset + length <= start + END_BYTES, "outside of the label"
        return self.ends[start], offset - start

    def read(self, offset: int, length: int) -> bytes:
        end, at = self._place(offset, length)
        return bytes(end[at : at + length])

    def write(self, offset: int, data: bytes) -> None:
        end, at = self._place(offset, len(data))
        there = data if self.left is None else data[: self.left]
        end[at : at + len(there)] = there
        if self.left is not None:
            self.left -= len(there)
            if len(there) < len(data):
                raise PowerCut


def store(number: int) -> str:
    return str(uuid.UUID(int=number))


def layout(version: int, *names: str, state: State = State.ACTIVE) -> Layout:
    ranges = tuple(
        LabelRange(name, END_BYTES + 2 * MIB * at, 2 * MIB, store(at + 1), state, version)
        for at, name in enumerate(names)
    )
    return Layout(version, "rack1", ranges, (Host(0, "node-a", 1),))


def formats(memory: Bytes) -> list[int]:
    """Of the layouts at the head."""
    found = [records.read(memory, at, 512 << 10, b"GISMOLO1") for at in (512 << 10, 1 << 20)]
    return [one.text["format"] for one in found if one is not None]


def test_nothing_then_a_pool_then_never_over_it() -> None:
    label = Label(Bytes())
    assert label.identity() is None
    assert label.layout() is None
    made = label.format(store(99))
    assert label.identity() == made == Identity(store(99), SIZE)
    with pytest.raises(LabelError, match="never formatted over"):
        label.format(store(98))


def test_layouts_come_back_as_they_were_written() -> None:
    memory = Bytes()
    label = Label(memory)
    label.format(store(99))
    for version in range(1, 12):
        wanted = layout(version, *[f"team-{n}" for n in range(version)])
        label.write_layout(wanted)
        assert Label(memory).layout() == wanted


def test_a_full_pool_fits() -> None:
    ranges = tuple(LabelRange(f"{'n' * 55}{n:03}", END_BYTES + n * MIB, MIB, store(n + 1)) for n in range(128))
    hosts = tuple(Host(n, f"{'h' * 250}{n:03}", 1 << 40) for n in range(MAX_HOSTS))
    memory = Bytes(1 << 30)
    label = Label(memory)
    label.format(store(99))
    full = Layout(1 << 50, "p" * 60, ranges, hosts)
    label.write_layout(full)
    assert label.layout() == full
    all_seen = tuple((other, "0123456789ab") for other in range(MAX_HOSTS - 1))
    for host_id in range(MAX_HOSTS):
        label.write_line(NodeLine(host_id, "h" * 253, store(1), store(2), 1 << 50, all_seen))
    assert label.layout() == full
    assert label.line(MAX_HOSTS - 1) == NodeLine(MAX_HOSTS - 1, "h" * 253, store(1), store(2), 1 << 50, all_seen)


@given(cuts=st.lists(st.integers(0, 900), min_size=1, max_size=12), same=st.booleans())
@settings(max_examples=300, deadline=None)
def test_whatever_is_torn_the_old_or_the_new_layout_is_there(cuts: list[int], same: bool) -> None:
    """cuts: after how many bytes of each writing the power fails; the next writer tries the same, or goes on."""
    memory = Bytes()
    Label(memory).format(store(99))
    Label(memory).write_layout(layout(1, "team-0"))
    held, version = layout(1, "team-0"), 1
    for cut in cuts:
        version += 1
        wanted = layout(version, "team-0", f"team-{version}")
        wanted = replace(wanted, ranges=(wanted.ranges[0],))
        memory.left = cut
        try:
            Label(memory).write_layout(wanted)
            complete = True
        except PowerCut:
            complete = False
        memory.left = None
        seen = Label(memory).layout()
        assert seen == wanted or (not complete and seen == held)
        assert seen is not None
        held = seen
        if same:
            Label(memory).write_layout(wanted)
            held = wanted
            # Both ends have it now: one of them may be lost.
            for end in memory.ends:
                kept = bytes(memory.ends[end])
                memory.ends[end][512 << 10 : 1536 << 10] = bytes(1 << 20)
                assert Label(memory).layout() == wanted
                memory.ends[end][:] = kept


@given(cut=st.integers(0, 300))
@settings(max_examples=120, deadline=None)
def test_formatting_that_was_cut_off_is_begun_again(cut: int) -> None:
    memory = Bytes()
    memory.left = cut
    try:
        Label(memory).format(store(1))
    except PowerCut:
        memory.left = None
        assert Label(memory).identity() is None
        Label(memory).format(store(2))
        assert Label(memory).identity() == Identity(store(2), SIZE)
    else:
        assert Label(memory).identity() == Identity(store(1), SIZE)


class Figure(Bytes):
    """Emulated memory: its two ends stay where they are whatever size it is said to have."""

    def __init__(self, size_bytes: int, ends: dict[int, bytearray] | None = None) -> None:
        super().__init__(size_bytes)
        if ends is not None:
            self.ends = dict(zip(self.ends, ends.values(), strict=True))


@given(cuts=st.lists(st.integers(0, 300), max_size=4))
@settings(max_examples=120, deadline=None)
def test_another_size_of_emulated_memory_cut_off_anywhere(cuts: list[int]) -> None:
    memory = Figure(SIZE)
    Label(memory).format(store(1))
    Label(memory).write_layout(layout(1, "team-a"))
    assert not Label(memory).has_other_size()
    for number, cut in enumerate(cuts, 2):
        memory = Figure(SIZE * number, memory.ends)
        assert Label(memory).has_other_size()
        memory.left = cut
        with contextlib.suppress(PowerCut):
            Label(memory).resize()
        memory.left = None
        assert Label(memory).layout() == layout(1, "team-a")
    memory = Figure(SIZE * 9, memory.ends)
    Label(memory).resize()
    assert not Label(memory).has_other_size()
    assert Label(memory).identity() == Identity(store(1), SIZE * 9)
    small = Figure(2 * END_BYTES + MIB, memory.ends)
    assert Label(small).has_other_size()
    with pytest.raises(NotASuccessor, match="range of team-a reaches into the tail"):
        Label(small).resize()
    assert Label(Figure(SIZE * 9, small.ends)).identity() == Identity(store(1), SIZE * 9)


def test_ends_of_two_memories_are_told_apart() -> None:
    one, other = Bytes(), Bytes()
    for number, memory in enumerate((one, other)):
        Label(memory).format(store(number + 1))
        Label(memory).write_layout(layout(1, "team-a"))
    mixed = Bytes()
    mixed.ends = {0: one.ends[0], SIZE - END_BYTES: other.ends[SIZE - END_BYTES]}
    with pytest.raises(LabelError, match="not of one memory"):
        Label(mixed).identity()
    cut = Bytes(SIZE // 2)
    cut.ends = {0: one.ends[0], SIZE // 2 - END_BYTES: one.ends[SIZE - END_BYTES]}
    with pytest.raises(LabelError, match=r"formatted with 67108864 bytes, and 33554432 are seen"):
        Label(cut).identity()
    blank = Bytes()
    blank.ends[0] = one.ends[0]
    with pytest.raises(LabelError, match="the tail of the pool label is gone"):
        Label(blank).identity()
    with pytest.raises(LabelError, match="the pool label alone takes"):
        Label(Bytes(END_BYTES))


A = replace(layout(5, "team-a", "team-b"), refused=(Refused(store(8), 5),))


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (replace(A, version=4), "older than the one in the pool label"),
        (replace(A, pool="rack2"), "this memory is pool rack1's"),
        (replace(A, ranges=(*A.ranges, LabelRange("team-c", 20 * MIB, MIB, store(9), layout_version=4))), "is of layout 4, and the one in the pool label, 5"),
        (replace(A, version=6, ranges=(*A.ranges, LabelRange("team-c", 20 * MIB, MIB, store(8), layout_version=6))), "team-c was refused before"),
        (replace(A, refused=()), f"{store(8)} was refused would be forgotten too early"),
        (replace(A, version=6, hosts=(Host(0, "node-b", 1),)), "host id 0 of node-a would be another's"),
        (replace(A, version=6, hosts=()), "host id 0 of node-a would be another's"),
        (layout(6, "team-a"), "team-b would go without having been zeroed"),
        (replace(layout(6, "team-a", "team-c"), ranges=(A.ranges[0], replace(A.ranges[1], namespace="team-c"))), "team-b would move or be another's"),
        (replace(A, version=6, ranges=(A.ranges[0], replace(A.ranges[1], offset_bytes=40 * MIB))), "team-b would move"),
        (replace(A, version=6, ranges=(*A.ranges, LabelRange("team-c", 5 * MIB, MIB, store(9)))), "team-c overlaps the range of team-b"),
        (replace(A, version=6, ranges=(*A.ranges, LabelRange("team-c", 61 * MIB, 2 * MIB, store(9)))), "team-c reaches into the tail"),
        (replace(A, version=6, ranges=(*A.ranges, LabelRange("team-c", MIB, 2 * MIB, store(9)))), "team-c overlaps the head"),
    ],
)  # fmt: skip
def test_what_must_not_follow_is_refused_and_nothing_is_written(new: Layout, why: str) -> None:
    memory = Bytes()
    label = Label(memory)
    label.format(store(99))
    label.write_layout(A)
    before = {end: bytes(data) for end, data in memory.ends.items()}
    with pytest.raises(NotASuccessor, match=why):
        label.write_layout(new)
    assert {end: bytes(data) for end, data in memory.ends.items()} == before


def test_a_range_goes_only_by_being_zeroed() -> None:
    label = Label(Bytes())
    label.format(store(99))
    label.write_layout(A)
    zeroing = replace(A, version=6, ranges=(A.ranges[0], replace(A.ranges[1], state=State.ZEROING)))
    label.write_layout(zeroing)
    with pytest.raises(NotASuccessor, match="cannot be used again"):
        label.write_layout(replace(A, version=7))
    late = replace(zeroing, ranges=(A.ranges[0], replace(zeroing.ranges[1], layout_version=7)), version=7)
    label.write_layout(late)
    with pytest.raises(NotASuccessor, match="would go without having been zeroed"):
        label.write_layout(layout(8, "team-a"))
    late = replace(late, ranges=(A.ranges[0], replace(late.ranges[1], state=State.ZEROED)))
    label.write_layout(late)
    with pytest.raises(NotASuccessor, match="would go in a layout that is not newer than it"):
        label.write_layout(replace(layout(7, "team-a"), refused=A.refused))
    label.write_layout(layout(8, "team-a"))
    again = LabelRange("team-c", A.ranges[1].offset_bytes, 2 * MIB, store(7), layout_version=8)
    label.write_layout(replace(layout(8, "team-a"), ranges=(A.ranges[0], again)))
    held = label.layout()
    assert held is not None
    assert held.ranges[1] == again


def test_what_is_quarantined_is_only_zeroed_and_stops_an_agent_that_does_not_know_it() -> None:
    memory = Bytes()
    label = Label(memory)
    label.format(store(99))
    label.write_layout(A)
    given_up = replace(A, version=6, ranges=(A.ranges[0], replace(A.ranges[1], state=State.QUARANTINED)))
    label.write_layout(given_up)
    assert label.layout() == given_up
    for state in (State.ACTIVE, State.RETAINED, State.RELEASING):
        with pytest.raises(NotASuccessor, match="given up by force"):
            label.write_layout(replace(A, version=7, ranges=(A.ranges[0], replace(A.ranges[1], state=state))))
    with pytest.raises(NotASuccessor, match="without having been zeroed"):
        label.write_layout(layout(7, "team-a"))
    assert sorted(formats(memory)) == [1, 2]
    for state in (State.ZEROING, State.ZEROED):
        label.write_layout(replace(given_up, ranges=(A.ranges[0], replace(A.ranges[1], state=state))))
    label.write_layout(layout(7, "team-a"))
    assert sorted(formats(memory)) == [1, 2]
    label.write_layout(layout(8, "team-a"))
    assert formats(memory) == [1, 1]


def test_a_store_that_was_there_once_is_not_forgotten_nor_by_an_agent_that_does_not_know_that() -> None:
    memory = Bytes()
    label = Label(memory)
    label.format(store(99))
    formatted = replace(A, ranges=(A.ranges[0], replace(A.ranges[1], formatted=True)))
    label.write_layout(formatted)
    assert label.layout() == formatted
    assert formats(memory) == [2]
    with pytest.raises(NotASuccessor, match="the store of team-b would be forgotten"):
        label.write_layout(replace(A, version=6))


def test_a_layout_of_an_older_agent_is_read() -> None:
    memory = Bytes()
    ranges = [
        {"namespace": "one", "offsetBytes": END_BYTES, "sizeBytes": MIB, "storeUUID": store(1), "state": "Zeroing"}
    ]
    older = {"format": 1, "layoutVersion": 3, "pool": "rack1", "ranges": ranges, "hosts": []}
    memory.write(512 << 10, records.packed(b"GISMOLO1", 1, older, 512 << 10))
    label = Label(memory)
    held = label.layout()
    assert held is not None
    assert (held.ranges[0].layout_version, held.refused) == (0, ())
    label.write_layout(replace(held, ranges=(replace(held.ranges[0], state=State.ZEROED),)))
    label.write_layout(Layout(4, "rack1"))
    assert label.layout() == Layout(4, "rack1")


@given(cut=st.integers(0, 400))
@settings(max_examples=100, deadline=None)
def test_a_line_that_is_torn_leaves_the_one_before(cut: int) -> None:
    memory = Bytes()
    first, second = (NodeLine(3, "node-c", store(1), store(n), 4) for n in (10, 11))
    Label(memory).write_line(NodeLine(2, "node-b", store(1), store(9), 4))
    Label(memory).write_line(first)
    memory.left = cut
    try:
        Label(memory).write_line(second)
    except PowerCut:
        assert Label(memory).line(3) in (first, second)
    else:
        assert Label(memory).line(3) == second
    memory.left = None
    Label(memory).write_line(second)
    assert Label(memory).line(3) == second
    assert Label(memory).line(2) == NodeLine(2, "node-b", store(1), store(9), 4)
    assert Label(memory).line(4) is None


def test_a_newer_format_stops_an_older_agent() -> None:
    memory = Bytes()
    label = Label(memory)
    label.format(store(99))
    label.write_layout(A)
    newer = records.packed(b"GISMOLO1", 2, {"format": 3, "anything": "else"}, 512 << 10)
    memory.write(1024 << 10, newer)
    with pytest.raises(TooNew, match="install the newer version"):
        label.layout()
    with pytest.raises(TooNew):
        label.write_layout(replace(A, version=6))
