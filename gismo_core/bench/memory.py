"""Warm memory to copy from and to, and what pages it lies in."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gismo_core.bench.medium import warm


@contextmanager
def source(nbytes: int) -> Iterator[int]:
    """Address of warm private memory in huge pages where the kernel has them, as a large NumPy array's is."""
    with mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        warm(memory)
        with address_of(memory) as address:
            yield address


@contextmanager
def address_of(memory: mmap.mmap) -> Iterator[int]:
    """Where a mapping lies."""
    first = ctypes.c_char.from_buffer(memory)
    try:
        yield ctypes.addressof(first)
    finally:
        del first  # else the mapping cannot be closed


def huge_bytes(path: Path) -> int:
    """How much of this process's mappings of a file lies in huge pages, bytes."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, _, rest = line.partition(" ")
        if not key.endswith(":"):
            ours = rest.endswith(str(path))
        elif ours and key in ("ShmemPmdMapped:", "FilePmdMapped:"):
            total += int(rest.split()[0]) * 1024
    return total


def has_huge_pages() -> bool:
    """Whether a pool in /dev/shm gets huge pages."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled").read_text()
    except OSError:
        return False
    return any(f"[{word}]" in text for word in ("always", "within_size", "force"))
