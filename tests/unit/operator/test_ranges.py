"""Dividing a pool's memory: nothing overlaps, nothing moves, and a gap that holds what is asked for is found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gismo_operator.reconcile.ranges import Range, conflicts, gaps, largest_gap, place

USABLE = Range(2, 100)  # 2 to 102


def test_the_lowest_gap_that_holds_it() -> None:
    there = {"a": Range(2, 10), "b": Range(20, 10), "c": Range(60, 42)}
    assert gaps(there.values(), USABLE) == [Range(12, 8), Range(30, 30)]
    placed = place(there, [("small", 8), ("large", 20)], USABLE)
    assert placed.ranges["small"] == Range(12, 8)
    assert placed.ranges["large"] == Range(30, 20)
    assert largest_gap(placed.ranges.values(), USABLE) == 10


def test_what_has_a_range_keeps_it_whatever_size_is_asked_for() -> None:
    placed = place({"a": Range(50, 10)}, [("a", 90)], USABLE)
    assert placed.ranges == {"a": Range(50, 10)}


def test_no_gap_is_said_and_the_next_is_still_placed() -> None:
    placed = place({"a": Range(40, 20)}, [("large", 45), ("small", 5)], USABLE)
    assert placed.without_room == ("large",)
    assert placed.ranges["small"] == Range(2, 5)


def test_conflicts_are_named() -> None:
    there = {"a": Range(2, 50), "b": Range(10, 5), "c": Range(40, 10), "d": Range(90, 20), "e": Range(0, 1)}
    assert sorted(conflicts(there, USABLE)) == [
        "a and b overlap",
        "a and c overlap",
        "d lies outside of the pool's memory",
        "e lies outside of the pool's memory",
    ]


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 60), st.booleans()), max_size=40))
def test_over_any_history_nothing_overlaps_or_moves(history: list[tuple[int, int, bool]]) -> None:
    there: dict[str, Range] = {}
    for number, size, is_removal in history:
        name = f"n{number}"
        if is_removal:
            there.pop(name, None)
            continue
        before = dict(there)
        room = largest_gap(there.values(), USABLE)
        placed = place(there, [(name, size)], USABLE)
        assert conflicts(placed.ranges, USABLE) == []
        assert all(placed.ranges[one] == where for one, where in before.items())
        assert (name in placed.ranges) == (name in before or size <= room)
        there = dict(placed.ranges)
        assert sum(gap.size_bytes for gap in gaps(there.values(), USABLE)) == 100 - sum(
            one.size_bytes for one in there.values()
        )
