"""What the demo's objects contain, so that a reader can tell right bytes from wrong ones without having seen them.

An object's tag says who wrote it and which one it is. Tag -> size and place in a block of random bytes that every
process makes for itself from one seed; the object holds the block's bytes from there.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

_SMALLEST_BYTES = 64
_SERIAL_BITS = 40
_64_BITS = (1 << 64) - 1


def make_tag(writer: int, serial: int) -> int:
    """The tag of a writer's serial-th object."""
    return (writer + 1) << _SERIAL_BITS | serial


def split_tag(tag: int) -> tuple[int, int]:
    """(writer, serial); the writer is -1 for an object that is none of the demo's."""
    return (tag >> _SERIAL_BITS) - 1, tag & ((1 << _SERIAL_BITS) - 1)


def object_name(writer: int, place: int) -> str:
    """Each writer keeps so many objects at a time, each in a place; a new one takes over an old one's name."""
    return f"demo/{writer}/{place}"


def _mix(value: int) -> int:
    """splitmix64's finisher: neighbouring tags give unlike numbers."""
    value = (value + 0x9E3779B97F4A7C15) & _64_BITS
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _64_BITS
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _64_BITS
    return value ^ value >> 31


@dataclass(frozen=True, slots=True)
class Content:
    """The block, and the largest object that is cut from it."""

    block: bytes
    largest_bytes: int
    doublings: float

    @classmethod
    def make(cls, largest_bytes: int, seed: int) -> Content:
        """The same in every process: the block is twice as long as the largest object."""
        return cls(
            random.Random(seed).randbytes(2 * largest_bytes),
            largest_bytes,
            math.log2(largest_bytes / _SMALLEST_BYTES),
        )

    def place(self, tag: int) -> tuple[int, int]:
        """(offset in the block, length): lengths from 64 B to the largest, as many in each doubling."""
        mixed = _mix(tag)
        length = int(_SMALLEST_BYTES * 2.0 ** (self.doublings * (mixed & 0xFFFFFFFF) / (1 << 32)))
        return (mixed >> 32) % self.largest_bytes, length

    def of(self, tag: int) -> memoryview:
        """The bytes that the object with this tag has."""
        offset, length = self.place(tag)
        return memoryview(self.block)[offset : offset + length]

    def matches(self, tag: int, data: memoryview) -> bool:
        """Whether these are those, every one: bytes.startswith takes any buffer, and is one memcmp."""
        offset, length = self.place(tag)
        return len(data) == length and self.block.startswith(data, offset)

    def large(self, nbytes: int) -> bytes:
        """What the one large object is cut from: the block again and again."""
        return (self.block * -(-nbytes // len(self.block)))[:nbytes]

    def matches_large(self, data: memoryview, start: int) -> bool:
        """Whether every byte is as large() has it from `start` on."""
        step = len(self.block)
        first = step - start
        return self.block.startswith(data[:first], start) and all(
            self.block.startswith(data[at : at + step]) for at in range(first, len(data), step)
        )
