"""How long native memory lives: the open store, and the buffers that keep a pin.

A buffer handed to Python may be sliced, cast, wrapped by numpy or pyarrow and outlive everything it came from.
What CPython promises is that each of those keeps the *exporter* alive; so the exporter is an object of ours, an
instance of a ctypes array over the bytes, and its `__del__` gives the pin back. (A finalizer on a PickleBuffer
or a memoryview fires too early: consumers hold what is below it.)

Exporters are instances of one type per power of two, since a ctypes type costs 9 us to make; the memoryview over
one is cut to the true length at once. `memoryview(...).obj` therefore shows the larger array: it is nobody's API.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from gismo_core import _native
from gismo_core.errors import ECLOSED, StoreClosed


class Fork:
    """Counts the forks that led to this process, so that what belongs to the parent is told from one's own."""

    generation = 0


_CLOSED = -1


class NativeStore:
    """A gismo_store and how it ends.

    gismo_close must not run while
    - a writable buffer is exported: it would abort the object and give bytes away that an array can still write;
    - another thread is inside a call that gave the GIL away: the memory would vanish under it. Such calls are made
      inside `with native:`. Calls that keep the GIL need no such care, because gismo_close keeps it as well.
    So close() marks the store closed at once, and whoever ends the last of these closes it. gismo_free must not run
    before the last pin is given back; every exporter holds a reference to this object, so it runs after the last.

    `epoch` is Fork.generation while open and negative once closed: an object being written remembers it, and one
    comparison tells whether it may still be sealed here.
    """

    __slots__ = ("__weakref__", "calls", "epoch", "library", "lock", "pointer", "release", "seal", "writers")

    def __init__(self, library: _native.Library, pointer: ctypes.c_void_p) -> None:
        self.library = library
        self.pointer = pointer
        self.release: Callable[..., int] = library.release
        self.seal: Callable[..., int] = library.quick.seal
        self.epoch = Fork.generation
        self.writers = 0
        self.calls = 0
        self.lock = threading.RLock()  # re-entrant: a finalizer may run inside it
        _open_stores.add(self)

    @property
    def closed(self) -> bool:
        return self.epoch < 0

    def close(self) -> None:
        """Close now, or when the last writable buffer is dropped and the last call is over. Safe to repeat."""
        with self.lock:
            if self.closed:
                return
            self.epoch = _CLOSED
            _open_stores.discard(self)
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self.closed and not self.writers and not self.calls:
            status = self.library.quick.close(self.pointer)
            if status:
                raise self.library.error(status)

    def __enter__(self) -> None:
        with self.lock:
            if self.epoch < 0:
                raise StoreClosed("the store is closed in this process; open it again")
            self.calls += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.calls = max(0, self.calls - 1)  # it is 0 in a child forked meanwhile
            self._close_if_unused()

    def careful(self, function: Callable[..., int]) -> Callable[..., int]:
        """`function`, which gives the GIL away, made safe against a close in another thread."""

        def call(*arguments: Any) -> int:
            try:
                with self:
                    return function(*arguments)
            except StoreClosed:
                return ECLOSED

        return call

    def add_writer(self) -> None:
        with self.lock:
            self.writers += 1

    def drop_writer(self) -> None:
        with self.lock:
            self.writers -= 1
            self._close_if_unused()

    def __del__(self) -> None:
        if not self.closed:
            self.epoch = _CLOSED
            self.library.slow.close(self.pointer)
        self.library.slow.free(self.pointer)


_open_stores: weakref.WeakSet[NativeStore] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    Fork.generation += 1
    for store in list(_open_stores):
        store.epoch = Fork.generation
        store.lock = threading.RLock()  # the threads that held the old one or were in a call are not here
        store.calls = 0


def _close_all() -> None:
    for store in list(_open_stores):
        store.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
# A clean end leaves the lane QUIET; a death is found and cleaned up after by the others, only later.
atexit.register(_close_all)


class _PinMixin:
    """Gives one pin back, by `release(pointer, slot)`, when the last buffer over it is gone."""

    __slots__ = ()

    def __del__(self) -> None:
        native: NativeStore = self.native  # type: ignore[attr-defined]
        native.release(native.pointer, self.slot)  # type: ignore[attr-defined]


class _WriteMixin:
    """Ends a writable buffer: does what seal or abort had to leave undone while it was exported."""

    __slots__ = ()

    def __del__(self) -> None:
        self.end.run()  # type: ignore[attr-defined]


class WriteEnd:
    """What is left to do when a writable buffer goes: nothing, abort the object, or release the pin seal took."""

    __slots__ = ("abort", "draft", "fork", "native", "release")

    def __init__(self, native: NativeStore, draft: _native.CObject) -> None:
        self.native = native
        self.draft = draft
        self.abort = False
        self.release = False
        self.fork = Fork.generation
        native.add_writer()

    def run(self) -> None:
        native = self.native
        if self.release:
            native.release(native.pointer, self.draft.handle.slot)
        if self.fork != Fork.generation:
            return  # the object is the parent's to end
        if self.abort:
            native.library.quick.abort(native.pointer, self.draft)
        native.drop_writer()


class ExporterTypes(dict[int, Any]):
    """size class -> how to make an exporter of 2**size_class bytes at an address; types are made when first used."""

    def __init__(self, mixin: type, *slots: str) -> None:
        self._mixin = mixin
        self._slots = slots

    def __missing__(self, size_class: int) -> Any:
        array = ctypes.c_char * (1 << size_class)
        made: Any = type(
            f"{self._mixin.__name__.strip('_')}{size_class}", (self._mixin, array), {"__slots__": self._slots}
        )
        return self.setdefault(size_class, made.from_address)


# "keep": whatever else is to live as long as the bytes, see Store.get.
pin_exporters = ExporterTypes(_PinMixin, "native", "slot", "keep")
write_exporters = ExporterTypes(_WriteMixin, "end")
