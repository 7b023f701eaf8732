"""Writing back and dropping cache lines of memory that is no store."""

from __future__ import annotations

import mmap
import tempfile

import pytest

from gismo_core import caches


def test_bytes_stay_and_bounds_are_kept() -> None:
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(1 << 16)
        here, there = mmap.mmap(file.fileno(), 1 << 16), mmap.mmap(file.fileno(), 1 << 16)
        here[100:105] = b"bytes"
        for offset, length in ((0, None), (100, 5), (0, 0), (1 << 16, 0), (63, 2)):
            caches.sync(here, offset, length)
        assert there[100:105] == b"bytes"
        for offset, length in ((-1, 5), (0, (1 << 16) + 1), (1 << 16, 1), (5, -2)):
            with pytest.raises(ValueError, match="is not in a buffer of 65536 bytes"):
                caches.sync(here, offset, length)
        here.close()  # no pointer to it is kept
        there.close()
    with pytest.raises(TypeError):
        caches.sync(b"read-only")
