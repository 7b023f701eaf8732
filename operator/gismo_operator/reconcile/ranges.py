"""Dividing a pool's memory: first fit, and a range that was given never moves.

The memory between the two ends of the pool label is one line of bytes. A new Gismo namespace gets the lowest gap that
holds it. Nothing is ever moved to make room: agents have mapped it, and the data is there. So a pool can have enough
bytes and no gap; `largest_gap` shows that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """Bytes of a pool: [offset, offset + size)."""

    offset_bytes: int
    size_bytes: int

    @property
    def end_bytes(self) -> int:
        """The first byte behind it."""
        return self.offset_bytes + self.size_bytes

    def overlaps(self, other: Range) -> bool:
        """Do they share a byte?"""
        return self.offset_bytes < other.end_bytes and other.offset_bytes < self.end_bytes


@dataclass(frozen=True, slots=True)
class Placement:
    """What place() decided."""

    ranges: Mapping[str, Range]  # by name, those that were there and those that are new
    without_room: tuple[str, ...]  # asked for, and there is no gap for them


def gaps(taken: Iterable[Range], usable: Range) -> list[Range]:
    """What is free of `usable`, in order."""
    found = []
    at = usable.offset_bytes
    for one in sorted(taken):
        if one.offset_bytes > at:
            found.append(Range(at, min(one.offset_bytes, usable.end_bytes) - at))
        at = max(at, one.end_bytes)
        if at >= usable.end_bytes:
            return found
    found.append(Range(at, usable.end_bytes - at))
    return found


def largest_gap(taken: Iterable[Range], usable: Range) -> int:
    """Bytes of the largest Gismo namespace that could be added now."""
    return max((gap.size_bytes for gap in gaps(taken, usable)), default=0)


def place(existing: Mapping[str, Range], wanted: Iterable[tuple[str, int]], usable: Range) -> Placement:
    """Ranges for those of `wanted` (name, bytes; in the order in which they were asked for) that have none yet."""
    ranges = dict(existing)
    without_room = []
    for name, size_bytes in wanted:
        if name in ranges:
            continue
        for gap in gaps(ranges.values(), usable):
            if gap.size_bytes >= size_bytes:
                ranges[name] = Range(gap.offset_bytes, size_bytes)
                break
        else:
            without_room.append(name)
    return Placement(ranges, tuple(without_room))


def conflicts(ranges: Mapping[str, Range], usable: Range) -> list[str]:
    """What must never be, in words: ranges that overlap, or lie outside of the memory."""
    found = []
    ordered = sorted(ranges.items(), key=lambda item: item[1])
    reach: tuple[str, Range] | None = None
    for name, one in ordered:
        if one.offset_bytes < usable.offset_bytes or one.end_bytes > usable.end_bytes:
            found.append(f"{name} lies outside of the pool's memory")
        if reach is not None and one.overlaps(reach[1]):
            found.append(f"{reach[0]} and {name} overlap")
        if reach is None or one.end_bytes > reach[1].end_bytes:
            reach = (name, one)
    return found
