"""This host's caches and shared memory, for those who use its bytes without a store: pool labels, zeroing."""

from __future__ import annotations

import ctypes
from typing import Any

from gismo_core import _native


def sync(memory: Any, offset: int = 0, length: int | None = None) -> None:
    """Write cached lines of a writable buffer (such as an mmap) back to the medium, and drop them.

    offset, length: bytes of it; None: up to its end. Afterwards other hosts can read what was written here, and what is
    read here is not older than the call. Needed where the hosts' caches are not kept coherent; harmless elsewhere.
    """
    with memoryview(memory) as view:
        there = view.nbytes
    end = there if length is None else offset + length
    if not 0 <= offset <= end <= there:
        raise ValueError(f"[{offset}, {end}) is not in a buffer of {there} bytes")
    if offset == end:
        return
    first = ctypes.c_char.from_buffer(memory, offset)  # the buffer cannot go while this lives
    _native.load().slow.sync(ctypes.addressof(first), end - offset)
