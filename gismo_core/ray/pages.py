"""Protection of a part of a mapping: from now on nobody can write there, whatever views of it there are.

mprotect walks the page table entries, 0.12 us for each: 32 ms for 1 GiB of 4 KiB pages. Moving the tables themselves out of
the way takes 0.2 ms: `mremap` hands over whole tables, of 512 entries, to a place that nobody knows, and leaves the mapping
as one that has no page yet, whose protection is one field. Who reads there gets its pages anew, at the price of a first
read. When the protection ends the tables are moved back, so that writing there again costs no faults.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gismo_core

_PROT_NONE, _PROT_READ, _PROT_WRITE = 0, 1, 2
_PRIVATE_ANONYMOUS_NORESERVE = 0x2 | 0x20 | 0x4000
_MAYMOVE, _FIXED, _DONTUNMAP = 1, 2, 4
_FAILED = ctypes.c_void_p(-1).value
_TABLE_BYTES = 2 << 20  # what one table of entries maps; it is moved as one between places that are alike modulo this
_WORTH_BYTES = 8 << 20  # below this mprotect is as quick

_libc = ctypes.CDLL(None, use_errno=True)
_size, _address = ctypes.c_size_t, ctypes.c_void_p
_libc.mprotect.argtypes = [_address, _size, ctypes.c_int]
_libc.mmap.argtypes = [_address, _size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [_address, _size]
_libc.mremap.argtypes = [_address, _size, _size, ctypes.c_int, _address]
_libc.mmap.restype = _libc.mremap.restype = _address


class Protection:
    """Of some whole pages of a writable shared mapping of a file, until end()."""

    __slots__ = ("_address", "_hidden", "_length")

    def __init__(self, address: int, length: int, hidden: int) -> None:
        self._address = address
        self._length = length
        self._hidden = hidden  # where the page tables are meanwhile, or 0

    def end(self) -> None:
        """They are writable again."""
        if self._hidden:
            _libc.mremap(self._hidden, self._length, self._length, _MAYMOVE | _FIXED, self._address)
        else:
            _libc.mprotect(self._address, self._length, _PROT_READ | _PROT_WRITE)


def grain(store: gismo_core.Store) -> int:
    """What can be protected in a store is a multiple of this, bytes, and begins at one: a page of the medium."""
    if store.info.is_dax:
        return _TABLE_BYTES
    return max(mmap.PAGESIZE, os.statvfs(store.path.removeprefix("file:")).f_bsize)


def protect(address: int, length: int, *, move: bool = True) -> Protection | None:
    """Make whole pages read-only in this process. None where that is impossible, and nothing has changed: they are no
    whole pages of what the medium has (part of one of hugetlbfs or device-DAX cannot be protected).

    move: the tables. Without gain where the pages are large, or are read here at once.
    """
    if address % mmap.PAGESIZE or length % mmap.PAGESIZE:
        return None
    hidden = _hide(address, length) if move and length >= _WORTH_BYTES else 0
    made = Protection(address, length, hidden)
    if _libc.mprotect(address, length, _PROT_READ) == 0:
        return made
    made.end()  # the first of several mappings may be protected
    return None


def _hide(address: int, length: int) -> int:
    """Move the page tables; 0 where this kernel (before 5.13), or this medium, does not."""
    room = _libc.mmap(None, length + _TABLE_BYTES, _PROT_NONE, _PRIVATE_ANONYMOUS_NORESERVE, -1, 0)
    if room == _FAILED:
        return 0
    before = (address - room) % _TABLE_BYTES
    moved = _libc.mremap(address, length, length, _MAYMOVE | _FIXED | _DONTUNMAP, room + before)
    # What is left of the room; all of it where nothing was moved. (It is not unmapped as a whole then: a failed move may
    # have made a hole in it, in which another thread's mapping may lie by now.)
    if before:
        _libc.munmap(room, before)
    if before < _TABLE_BYTES:
        _libc.munmap(room + before + length, _TABLE_BYTES - before)
    return 0 if moved == _FAILED else int(moved)
