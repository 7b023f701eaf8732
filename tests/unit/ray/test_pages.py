"""Pages that nobody can write: small ones by mprotect, large ones by moving their page tables away."""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from gismo_core.ray import pages

MiB = 1 << 20


class Mapped:
    """A file in memory, mapped as a store is, and where."""

    def __init__(self, nbytes: int) -> None:
        self.file = os.memfd_create("pages")
        os.ftruncate(self.file, nbytes)
        self.memory = mmap.mmap(self.file, nbytes)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def on_file(self, offset: int) -> int:
        return os.pread(self.file, 1, offset)[0]


@pytest.fixture
def mapped() -> Iterator[Callable[[int], Mapped]]:
    made: list[Mapped] = []

    def make(nbytes: int) -> Mapped:
        made.append(Mapped(nbytes))
        return made[-1]

    yield make
    for one in made:
        os.close(one.file)


def write(address: int, value: int) -> None:
    ctypes.c_ubyte.from_address(address).value = value


def dies_of_writing(address: int) -> bool:
    """Whether a forked child is ended by SIGSEGV when it writes there."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        write(address, 99)
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGSEGV


@pytest.mark.parametrize("nbytes", [MiB, 24 * MiB], ids=["mprotect", "moved"])
def test_nobody_writes_there_until_it_ends(mapped: Callable[[int], Mapped], nbytes: int) -> None:
    one = mapped(nbytes + 8 * mmap.PAGESIZE)
    first = 3 * mmap.PAGESIZE
    last = first + nbytes - 1
    byte = ctypes.c_ubyte.from_address
    for at in (first - 1, first, first + nbytes // 2, last, last + 1):
        write(one.start + at, 1)

    protection = pages.protect(one.start + first, nbytes)
    assert protection is not None
    assert bool(protection._hidden) == (nbytes > 8 * MiB)
    for at in (first, first + nbytes // 2, last):
        assert byte(one.start + at).value == 1
        assert dies_of_writing(one.start + at)
    for at in (first - 1, last + 1):
        write(one.start + at, 2)
        assert one.on_file(at) == 2
    os.pwrite(one.file, b"\7", last)  # it is still the file's page, not a copy
    assert byte(one.start + last).value == 7

    protection.end()
    for at in (first, first + nbytes // 2, last):
        write(one.start + at, 3)
        assert one.on_file(at) == 3


def test_what_is_not_whole_pages_is_left_alone(mapped: Callable[[int], Mapped]) -> None:
    one = mapped(MiB)
    assert pages.protect(one.start + 64, mmap.PAGESIZE) is None
    assert pages.protect(one.start, 64) is None
    write(one.start, 1)
    assert one.on_file(0) == 1


def test_where_page_tables_cannot_be_moved(mapped: Callable[[int], Mapped], monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel before 5.13: mprotect alone."""
    monkeypatch.setattr(pages, "_DONTUNMAP", 1 << 30)  # EINVAL, as there
    one = mapped(16 * MiB)
    protection = pages.protect(one.start, 16 * MiB)
    assert protection is not None
    assert not protection._hidden
    assert dies_of_writing(one.start)
    protection.end()
    write(one.start, 3)
    assert one.on_file(0) == 3


def test_where_a_part_cannot_be_protected_none_is(mapped: Callable[[int], Mapped]) -> None:
    one = mapped(4 * mmap.PAGESIZE)
    pages._libc.munmap(one.start + 2 * mmap.PAGESIZE, mmap.PAGESIZE)  # mprotect comes to it after two pages
    assert pages.protect(one.start, 4 * mmap.PAGESIZE) is None
    assert not dies_of_writing(one.start)
