"""Bytes of a DAX device, mapped: what an agent itself reads and writes of a pool's memory.

Cache lines are written back and dropped around each access, whatever the coherence of the pool: labels are small, and what was
cached of an older owner must not come back.
"""

from __future__ import annotations

import mmap
import os

from gismo_core import caches
from gismo_deviceplugin.pool.label import END_BYTES
from gismo_deviceplugin.pool.medium import Progress

_PIECE_BYTES = 16 << 20
_SYNC_BYTES = 1 << 30  # some tenths of a second


class Mapped:
    """The first bytes of an open device. The file descriptor is closed here."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        try:
            self._map = mmap.mmap(fd, size_bytes)  # MAP_SHARED, as a DAX device demands
        finally:
            os.close(fd)

    def read(self, offset: int, length: int) -> bytes:
        """As the medium has them now."""
        caches.sync(self._map, offset, length)
        return self._map[offset : offset + length]

    def write(self, offset: int, data: bytes) -> None:
        """On the medium at the end of the call."""
        self._map[offset : offset + len(data)] = data
        caches.sync(self._map, offset, len(data))

    def zero(self, progress: Progress | None = None) -> None:
        """All of it."""
        blank = bytes(min(_PIECE_BYTES, self.size_bytes))
        for offset in range(0, self.size_bytes, _PIECE_BYTES):
            self.write(offset, blank[: self.size_bytes - offset])
            if progress is not None:
                progress(min(offset + _PIECE_BYTES, self.size_bytes), self.size_bytes)

    def sync(self, offset: int = 0, length: int | None = None, progress: Progress | None = None) -> None:
        """Write back and drop what this host has cached of it, or of a part of it."""
        end = self.size_bytes if length is None else offset + length
        for at in range(offset, end, _SYNC_BYTES):
            piece = min(_SYNC_BYTES, end - at)
            caches.sync(self._map, at, piece)
            if progress is not None:
                progress(at + piece - offset, end - offset)

    def close(self) -> None:
        """No access after it."""
        self._map.close()


class LabelEnds:
    """Head and tail of a region as the ends of one memory (records.Memory)."""

    def __init__(self, size_bytes: int, head: Mapped, tail: Mapped) -> None:
        self.size_bytes = size_bytes
        self.head = head
        self.tail = tail

    def read(self, offset: int, length: int) -> bytes:
        """Of one of the ends."""
        end, at = self._at(offset, length)
        return end.read(at, length)

    def write(self, offset: int, data: bytes) -> None:
        """Of one of the ends."""
        end, at = self._at(offset, len(data))
        end.write(at, data)

    def close(self) -> None:
        """No access after it."""
        self.head.close()
        self.tail.close()

    def _at(self, offset: int, length: int) -> tuple[Mapped, int]:
        tail = self.size_bytes - END_BYTES
        end, at = (self.head, offset) if offset < END_BYTES else (self.tail, offset - tail)
        if at < 0 or at + length > END_BYTES:
            raise ValueError(f"{offset} is not in the pool label")
        return end, at
