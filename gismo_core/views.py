"""View: a pinned, read-only object. Draft: an object being written.

A View is bytes-like on every Python: memoryview(view), np.frombuffer(view), pa.py_buffer(view) and
pickle.PickleBuffer(view) see the shared bytes without a copy, and nothing makes them writable.
"""

from __future__ import annotations

import ctypes
import datetime
import pickle
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from gismo_core import _native, errors
from gismo_core._buffers import Pinned
from gismo_core._export import export_buffer
from gismo_core._lifetime import NativeStore, WriteEnd, write_exporters
from gismo_core.handles import Handle, first_48, unchecked

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

_RELEASED = memoryview(b"")
_RELEASED.release()  # using it raises ValueError, as using any released memoryview does
_ALIGN = 64
_QUICK_COPY_BYTES = 16 * 1024  # below this another thread would not be done with the GIL before the copy is
_ENDED = -2  # no epoch of an open store, nor that of a closed one


class View:
    """One sealed object, pinned for this process until the last buffer over it is gone.

    `del view`, view.release() and leaving a `with` block drop the View's own reference; buffers taken from it
    (slices, arrays, memoryviews) stay valid, also after store.close() and in a forked child, and keep the pin.
    Made by Store.get. An unpickled View keeps the buffer it was unpickled with and pins nothing itself.
    """

    # Slots lie in alphabetical order, and export_buffer needs the memory in the second.
    __slots__ = ("__weakref__", "_a_native", "_b_memory", "_c_view", "_d_handle", "_e_meta")

    _a_native: NativeStore | None
    _b_memory: memoryview
    _c_view: _native.CView
    _d_handle: Handle
    _e_meta: tuple[str | None, tuple[int, ...]] | None  # name and buffer lengths, once known

    def __new__(cls) -> Self:
        raise errors.InvalidArgument("a View is made by store.get(handle)")

    @property
    def data(self) -> memoryview:
        """The whole payload: a read-only memoryview of bytes."""
        memory = self._b_memory
        if memory is _RELEASED:
            raise errors.StoreClosed("this view was released; get the object again with store.get(view.handle)")
        return memory

    def __buffer__(self, flags: int, /) -> memoryview:
        # For type checkers, isinstance(view, collections.abc.Buffer) and where export_buffer does not apply.
        return memoryview(self._b_memory)

    @property
    def buffers(self) -> tuple[memoryview, ...]:
        """The buffers as they were put: each a read-only memoryview, 64-byte aligned in the payload."""
        memory = self.data
        if self._c_view.buffers == 1:
            return (memory,)
        parts = []
        start = 0
        for length in self._known()[1]:
            parts.append(memory[start : start + length])
            start += -(-length // _ALIGN) * _ALIGN
        return tuple(parts)

    @property
    def handle(self) -> Handle:
        """What names the object; valid in every process that opens the store."""
        return self._d_handle

    @property
    def name(self) -> str | None:
        """The name it was given, or None."""
        return self._known()[0]

    @property
    def tag(self) -> int:
        """The 64-bit user tag (accounting by job), 0 if none was given."""
        return cast(int, self._c_view.tag)

    @property
    def created_unix_ns(self) -> int:
        """When it was created, nanoseconds since 1970, by the creator's clock."""
        return cast(int, self._c_view.created_unix_ns)

    @property
    def created(self) -> datetime.datetime:
        """When it was created (UTC, microseconds), by the creator's clock."""
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        return epoch + datetime.timedelta(microseconds=self.created_unix_ns // 1000)

    @property
    def nbytes(self) -> int:
        """Payload bytes, alignment gaps between buffers included."""
        return cast(int, self._c_view.length)

    def __len__(self) -> int:
        return cast(int, self._c_view.length)

    def _known(self) -> tuple[str | None, tuple[int, ...]]:
        if self._e_meta is None:
            self._e_meta = self._read_meta()
        return self._e_meta

    def _read_meta(self) -> tuple[str | None, tuple[int, ...]]:
        view = self._c_view
        name = None
        lengths: tuple[int, ...] = (view.length,)
        if not view.name_bytes and view.buffers == 1:
            return name, lengths
        memory = self._b_memory  # keeps the pin during the calls
        native = self._open_native("ask for name and buffers before closing it")
        if view.name_bytes:
            text = ctypes.create_string_buffer(_native.NAME_MAX + 1)
            got = native.library.slow.view_name(native.pointer, view, text)
            if got < 0:
                raise native.library.error(got)
            name = text.raw[:got].decode("utf-8", "replace")
        if view.buffers > 1:
            table = (ctypes.c_uint64 * view.buffers)()
            status = native.library.slow.view_buffers(native.pointer, view, table)
            if status:
                raise native.library.error(status)
            lengths = tuple(table)
            # Read from shared memory: believe it only where it fits the payload.
            if sum(-(-length // _ALIGN) * _ALIGN for length in lengths[:-1]) + lengths[-1] != len(memory):
                raise errors.CorruptStore(
                    f"the buffer lengths of {self._d_handle} do not add up to its payload; run `gismo fsck --verify`"
                )
        return name, lengths

    def _open_native(self, advice: str) -> NativeStore:
        native = self._a_native
        if native is None:
            raise errors.StoreClosed("this view came from a pickle and is bound to no store; get it from the store")
        if self._b_memory is _RELEASED:
            raise errors.StoreClosed("this view was released; get the object again with store.get(view.handle)")
        if native.closed:
            raise errors.StoreClosed(f"the store of this view is closed; {advice}")
        return native

    def verify(self) -> bool:
        """Check the payload against its CRC32C: True if it holds, False if the object has none.

        `put` computes one; a created object has one after seal(crc=True). CorruptStore if it fails.
        """
        native = self._open_native("open it again to verify")
        memory = self._b_memory
        status = native.library.slow.view_verify(native.pointer, self._c_view)
        del memory
        if status == errors.EUNSUPPORTED:
            return False
        if status:
            raise native.library.error(status)
        return True

    def release(self) -> None:
        """Let go now. The pin goes with the last buffer that was taken from this view. Safe to repeat."""
        self._b_memory = _RELEASED

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __copy__(self) -> Self:
        return self  # nothing about it can change

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        data: Any = self.data
        # Protocol 5 hands the buffer over without a copy when the pickler has a buffer_callback.
        data = pickle.PickleBuffer(data) if protocol >= 5 else bytes(data)
        return (_unpickle, (data, self._d_handle, bytes(self._c_view), *self._known()))

    def __repr__(self) -> str:
        state = "released" if self._b_memory is _RELEASED else f"{self.nbytes} bytes"
        return f"<gismo View of {self._d_handle}, {state}>"


def _unpickle(data: Any, handle: Handle, raw_view: bytes, name: str | None, lengths: tuple[int, ...]) -> View:
    view = object.__new__(View)
    view._a_native = None
    view._b_memory = memoryview(data).cast("B").toreadonly()
    view._c_view = _native.CView.from_buffer_copy(raw_view)
    view._c_view.data = 0
    view._d_handle = handle
    view._e_meta = (name, lengths)
    return view


export_buffer(View, "_b_memory")


class Draft:
    """An object being written: fill `buffer`, then seal(). Made by Store.create; leaving the `with` block without
    a seal, or dropping it, aborts it and nothing is ever visible to others.

    Sealing ends `buffer` (touching it raises ValueError). An array or slice that was made from it and still lives
    keeps the object's bytes from being reused, so that a late store can only hurt this object.
    """

    __slots__ = ("__weakref__", "_draft", "_end", "_epoch", "_export", "_memory", "_store")

    _store: NativeStore
    _draft: _native.CObject
    _epoch: int  # the store's, while this may be written; another number afterwards
    _end: str  # "sealed" or "aborted", once it is
    _memory: memoryview | None
    _export: weakref.ref[Any] | None

    def __new__(cls) -> Self:
        raise errors.InvalidArgument("a Draft is made by store.create(nbytes)")

    @property
    def nbytes(self) -> int:
        """Bytes to be written."""
        return cast(int, self._draft.handle.length)

    @property
    def buffer(self) -> memoryview:
        """The bytes, writable until sealed, 64-byte aligned. What is not written has no defined content."""
        if self._memory is None:
            self._check_open("write to")
            self._memory = self._export_memory()
        return self._memory

    def _export_memory(self) -> memoryview:
        draft = self._draft
        length: int = draft.handle.length
        exporter = write_exporters[length.bit_length()](draft.data)
        exporter.end = WriteEnd(self._store, draft)
        self._export = weakref.ref(exporter)
        return memoryview(exporter).cast("B")[:length]

    def _check_open(self, verb: str) -> None:
        if self._epoch == self._store.epoch:
            return
        if self._epoch == _ENDED:
            raise errors.StoreClosed(f"cannot {verb} this object: it is {self._end} already; create another one")
        if self._store.closed:
            raise errors.StoreClosed(f"cannot {verb} this object: its store is closed; open the store again")
        raise errors.StorePermissionError(
            f"cannot {verb} this object: the process before fork() is writing it; create one in this process"
        )

    def _end_memory(self) -> Any:
        """Drop our own buffer; the exporter if somebody else still has one over it, else None."""
        memory, self._memory = self._memory, None
        if memory is None:
            return None
        try:
            memory.release()
        except BufferError:
            pass  # an array was made right over it; the exporter below tells
        del memory
        return None if self._export is None else self._export()

    def seal(self, crc: bool = False) -> Handle:
        """Publish it: from now on every host can get it and nobody may change it. Returns the handle.

        crc: compute a CRC32C of the payload now (about 0.1 s per GiB), for View.verify and fsck --verify.

        Errors: NameTaken if another object got the name since create. The draft then stays: abort it, or seal it when
        that one is gone (where an array over the buffer still lives, it is aborted at once).
        """
        native = self._store
        if self._epoch != native.epoch:
            self._check_open("seal")
        exporter = None if self._memory is None else self._end_memory()
        draft = self._draft
        if crc:
            status = native.careful(native.library.slow.seal)(native.pointer, draft, _native.SEAL_CRC)
        else:
            status = native.seal(native.pointer, draft, 0)
        if status:
            if exporter is not None:  # somebody can still write there, and we cannot take it back: as abort does
                self._epoch = _ENDED
                self._end = "aborted"
                exporter.end.abort = True
            raise native.library.error(status, exists=errors.NameTaken)
        self._epoch = _ENDED
        self._end = "sealed"
        (raw,) = first_48(draft)
        if exporter is not None:
            # An array over the buffer still lives: pin the object for as long, so that a late store hurts no other.
            # (Whoever deletes it between the two calls can let the bytes be reused; nobody knows the handle yet.)
            exporter.end.release = native.library.quick.get(native.pointer, raw, _native.CView()) == errors.OK
        return unchecked(raw)

    def abort(self) -> None:
        """Give it up; its bytes are free once the last buffer over them is gone. Safe to repeat; not after seal."""
        if self._epoch == _ENDED and self._end == "aborted":
            return
        self._check_open("abort")
        self._abort()

    def _abort(self) -> None:
        self._epoch = _ENDED
        self._end = "aborted"
        exporter = self._end_memory()
        native = self._store
        if exporter is not None:
            # Somebody can still write there: the bytes must not be given to another object yet.
            exporter.end.abort = True
            return
        status = native.library.quick.abort(native.pointer, self._draft)
        if status:
            raise native.library.error(status)

    @property
    def handle(self) -> Handle:
        """What names the object, once it is sealed."""
        if self._epoch != _ENDED or self._end != "sealed":
            raise errors.InvalidArgument("the object is not sealed: call seal() first")
        return unchecked(*first_48(self._draft))

    @property
    def promised_handle(self) -> Handle:
        """What will name the object once it is sealed; until then a get of it is ObjectGone."""
        return unchecked(*first_48(self._draft))

    def fill(self, buffers: Sequence[Buffer]) -> None:
        """Copy buffers into it from the start, end to end, each 64-byte aligned, as quickly as Store.put does.

        InvalidArgument if one is not bytes-like and C-contiguous, or if they do not fit; MediaError.
        """
        self._check_open("fill")
        native = self._store
        with Pinned(buffers) as pinned:
            starts = []
            end = 0
            for _, length in pinned.parts():
                starts.append(-(-end // _ALIGN) * _ALIGN)
                end = starts[-1] + length
            if end > self.nbytes:
                raise errors.InvalidArgument(f"{end} bytes do not fit into an object of {self.nbytes} bytes")
            quick, slow = native.library.quick.write, native.library.slow.write
            with native:
                for start, (address, length) in zip(starts, pinned.parts(), strict=True):
                    if length:
                        write = quick if length < _QUICK_COPY_BYTES else slow
                        status = write(native.pointer, self._draft, start, address, length)
                        if status:
                            raise native.library.error(status)

    def write(self, offset: int, data: bytes) -> None:
        """Copy a few bytes to an offset: quicker than through `buffer`, which has to be made first.

        InvalidArgument if they do not fit; MediaError.
        """
        self._check_open("write to")
        if type(data) is not bytes:
            raise errors.InvalidArgument(
                f"write takes bytes, not {type(data).__name__}; fill takes all that is bytes-like"
            )
        try:
            fits = 0 <= offset <= self.nbytes - len(data)
        except TypeError:
            fits = False
        if not fits:
            raise errors.InvalidArgument(f"{len(data)} bytes at {offset!r} do not fit into {self.nbytes} bytes")
        native = self._store
        with native:
            status = native.library.quick.write(native.pointer, self._draft, offset, data, len(data))
        if status:
            raise native.library.error(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._epoch == self._store.epoch:
            self._abort()

    def __del__(self) -> None:
        if self._epoch == self._store.epoch:
            self._abort()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a Draft cannot be pickled: seal it and send its handle")

    def __repr__(self) -> str:
        return f"<gismo Draft of {self.nbytes} bytes, {self._end if self._epoch == _ENDED else 'being written'}>"
