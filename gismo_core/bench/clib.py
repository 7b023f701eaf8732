"""libgismo_bench.so by ctypes: the loops in C, and the stores that they run on."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ABI_VERSION: Final = 2
HANDLE_BYTES: Final = 48
OK: Final = 0
NOT_A_STORE: Final = -3

COPY_VARIANTS: Final = (
    "memcpy of the C library",
    "cached vector stores",
    "rep movsb",
    "non-temporal stores",
    "non-temporal stores, 2 threads",
    "memcpy of the C library, 2 threads",
)
THREADED_VARIANTS: Final = (4, 5)


class MissingLibraryError(Exception):
    """libgismo_bench.so was not built."""


class NativeError(Exception):
    """A call of the C API failed."""

    def __init__(self, call: str, status: int, message: str) -> None:
        super().__init__(f"{call}: {message or 'failed'} (status {status})")
        self.status = status


def library_path() -> Path:
    """Where libgismo_bench.so is, beside libgismo.so."""
    import gismo_core

    tried = [Path(entry) / "_lib" / "libgismo_bench.so" for entry in gismo_core.__path__]
    for path in tried:
        if path.exists():
            return path
    raise MissingLibraryError(
        f"libgismo_bench.so is not at {' or '.join(map(str, tried))}: build it with `make build`, or install the package"
    )


class Handles:
    """An array of gismo_handle, all zero at first; in huge pages, for its misses are not the store's."""

    def __init__(self, count: int) -> None:
        self.count = count
        memory = mmap.mmap(-1, HANDLE_BYTES * count, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        self._first = ctypes.c_char.from_buffer(memory)  # keeps the mapping

    def at(self, index: int) -> ctypes.c_void_p:
        """Address of one of them."""
        return ctypes.c_void_p(ctypes.addressof(self._first) + HANDLE_BYTES * index)


class Store:
    """A gismo_store opened by the bench library. Times returned are nanoseconds."""

    def __init__(self, native: Native, pointer: ctypes.c_void_p, open_ns: int) -> None:
        self._native = native
        self._pointer: ctypes.c_void_p | None = pointer
        self.open_ns = open_ns

    def close(self) -> None:
        """Close and free it; once more does nothing."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            self._native.call("close", pointer)

    def put_lap(self, src: int, length: int, slots: int, handles: Handles) -> int:
        """One lap of rotating puts."""
        return self._timed("put_lap", src, length, slots, handles.at(0))

    def put(self, src: int, length: int) -> Handles:
        """One put; its handle."""
        handle = Handles(1)
        self._native.call("put", self._pointer, ctypes.c_void_p(src), ctypes.c_uint64(length), handle.at(0))
        return handle

    def get(self, handle: Handles, count: int) -> int:
        """count gets of one object, without the releases."""
        return self._timed("get", handle.at(0), count)

    def cycle(self, length: int, count: int) -> int:
        """count cycles."""
        return self._timed("cycle", length, count)

    def cycle_window(self, length: int, begin: int, end: int) -> tuple[int, int]:
        """Cycles until ``end``: (those within the window, the longest in ns)."""
        count, longest = ctypes.c_uint64(), ctypes.c_uint64()
        self._native.call(
            "cycle_window", self._pointer, *_numbers(length, begin, end), ctypes.byref(count), ctypes.byref(longest)
        )
        return count.value, longest.value

    def fill(self, length: int, count: int, *, named: bool) -> Handles:
        """Make count objects."""
        handles = Handles(count)
        self._native.call("fill", self._pointer, *_numbers(length, count), ctypes.c_int(named), handles.at(0))
        return handles

    def replace(self, length: int, handles: Handles, pairs: int, seed: int) -> int:
        """Delete a random one and make one, ``pairs`` times."""
        return self._timed("replace", length, handles.at(0), handles.count, pairs, seed)

    def lookup(self, count: int, lookups: int, seed: int) -> int:
        """Random names."""
        return self._timed("lookup", count, lookups, seed)

    def hold(self, small_bytes: int, large_bytes: int, count: int) -> None:
        """Begin count objects and seal none."""
        self._native.call("hold", self._pointer, *_numbers(small_bytes, large_bytes, count))

    def touch(self) -> int:
        """One operation."""
        return self._timed("touch")

    def writing(self) -> int:
        """Objects that are half-written, of any process."""
        objects = ctypes.c_uint64()
        self._native.call("writing", self._pointer, ctypes.byref(objects))
        return objects.value

    def wait_free(self, since: int, timeout_ns: int) -> int:
        """Wait until nothing is half-written; how long that was after ``since``."""
        return self._timed("wait_free", since, timeout_ns)

    def _timed(self, name: str, *arguments: int | ctypes.c_void_p) -> int:
        ns = ctypes.c_uint64()
        self._native.call(name, self._pointer, *_numbers(*arguments), ctypes.byref(ns))
        return ns.value


def _numbers(*arguments: int | ctypes.c_void_p) -> list[ctypes.c_uint64 | ctypes.c_void_p]:
    return [ctypes.c_uint64(argument) if isinstance(argument, int) else argument for argument in arguments]


class Native:
    """The functions of libgismo_bench.so."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        version = self._library.gismo_bench_abi_version()
        if version != ABI_VERSION:
            raise MissingLibraryError(f"{path} is of another build (ABI {version}, not {ABI_VERSION}): build it again")
        self._message = self._library.gismo_error_message
        self._message.restype = ctypes.c_char_p
        self._now = self._library.gismo_bench_now
        self._now.restype = ctypes.c_uint64

    def call(self, name: str, *arguments: object) -> None:
        """Call gismo_bench_NAME and raise :class:`NativeError` for any status but GISMO_OK."""
        status = getattr(self._library, f"gismo_bench_{name}")(*arguments)
        if status != OK:
            raise NativeError(name, status, (self._message() or b"").decode(errors="replace"))

    def now(self) -> int:
        """CLOCK_MONOTONIC, ns: the same clock in every process."""
        return int(self._now())

    def format(
        self, spec: str, size_bytes: int, max_objects: int = 0, *, populate: bool = True, software: bool = False
    ) -> None:
        """Make a store, whatever is there. software: as for hosts that are not coherent."""
        flags = ctypes.c_int(populate), ctypes.c_int(software)
        self.call("format", spec.encode(), *_numbers(size_bytes, max_objects), *flags)

    def probe(self, spec: str) -> int | None:
        """Size of the store that the medium holds, or None."""
        size = ctypes.c_uint64()
        try:
            self.call("probe", spec.encode(), ctypes.byref(size))
        except NativeError as error:
            if error.status == NOT_A_STORE:
                return None
            raise
        return size.value

    def open(self, spec: str, state_dir: Path) -> Store:
        """Open a store; a state directory is a host."""
        pointer, ns = ctypes.c_void_p(), ctypes.c_uint64()
        self.call("open", spec.encode(), str(state_dir).encode(), ctypes.byref(pointer), ctypes.byref(ns))
        return Store(self, pointer, ns.value)

    @contextlib.contextmanager
    def opened(self, spec: str, state_dir: Path) -> Iterator[Store]:
        """Open and close."""
        store = self.open(spec, state_dir)
        try:
            yield store
        finally:
            store.close()

    @contextlib.contextmanager
    def copier(self) -> Iterator[ctypes.c_void_p]:
        """The second thread of the threaded copies."""
        pointer = ctypes.c_void_p()
        self.call("copier_new", ctypes.byref(pointer))
        try:
            yield pointer
        finally:
            self._library.gismo_bench_copier_free(pointer)

    def copy_lap(self, copier: ctypes.c_void_p, variant: int, dst: int, src: int, length: int, slots: int) -> int:
        """One lap of rotating copies."""
        ns = ctypes.c_uint64()
        addresses = ctypes.c_void_p(dst), ctypes.c_void_p(src)
        self.call("copy_lap", copier, ctypes.c_int(variant), *addresses, *_numbers(length, slots), ctypes.byref(ns))
        return ns.value


@functools.cache
def native() -> Native:
    """The library, loaded once."""
    return Native(library_path())
