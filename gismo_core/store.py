"""Store: put, create, get, look up, delete; and what the store tells about itself.

Calls that copy, flush, wait or scan give the GIL away; those that take nanoseconds keep it, which is faster.
"""

from __future__ import annotations

import ctypes
import math
import operator
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gismo_core import _native, errors, node_marker
from gismo_core._buffers import Pinned, hold
from gismo_core._lifetime import NativeStore, pin_exporters
from gismo_core.handles import Handle, first_48, unchecked
from gismo_core.views import Draft, View

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

    from gismo_core import records  # imported where it is used: half of the time of an import, and few ask
    from gismo_core.following import Follower

_Path = str | os.PathLike[str]

# A put below this keeps the GIL: the copy (about 10 us) is over before a hand-over to another thread would be.
_QUICK_PUT_BYTES = 64 * 1024
# Waits are cut into slices, so that Python can see a signal (Ctrl-C) between them.
_WAIT_SLICE_NS = 100_000_000
_FOR_EVER_S = 1e9  # decades
_WAIT_NEVER = -2  # GISMO_WAIT_NEVER of gismo.h
_HOLDERS_SCAN_S = 0.05
_HOLDERS_MAX = 16
_EVICT_AGAIN_S = 0.05
_LIST_AT_ONCE = 4096
_BRIEF_BYTES = ctypes.sizeof(_native.CBrief)
_BUFFERS_MAX = 1 << 20  # GISMO_BUFFERS_MAX of gismo.h

# Names of the module are found faster than attributes, and __init__ costs more than what it would do.
_new_view: Callable[[type[View]], View] = object.__new__
_new_draft: Callable[[type[Draft]], Draft] = object.__new__
_new_handle: Callable[[type[Handle]], Handle] = object.__new__
_set_raw: Callable[[Handle, bytes], None] = Handle.__dict__["raw"].__set__
_CHandle = _native.CHandle
_CRawHandle = _native.CRawHandle
_CObject = _native.CObject
_CView = _native.CView


def open(  # noqa: A001 - the name fixed by the design, as in gismo_core.open(...)
    path: _Path | None = None,
    *,
    host_id: int | None = None,
    state_dir: _Path | None = None,
    read_only: bool = False,
    restarted: bool = False,
) -> Store:
    """Open a store and take part in it.

    path: "file:PATH", "dax:/dev/daxX.Y" or a bare path (dax for a character device, else file); None for
        $GISMO_STORE.
    host_id: take this host's place (0 to 63); default $GISMO_HOST_ID, else the own one, else the lowest free.
    state_dir: where processes of this host meet; default $GISMO_STATE_DIR, /run/gismo, $XDG_RUNTIME_DIR/gismo,
        /dev/shm/gismo-UID. Another one makes another host.
    read_only: join nothing and write nothing; only info, objects, hosts, stats and fsck work.
    restarted: you know that whoever used this host_id in this boot of the machine has ended, and the state directory of that time
        is lost (a node that is a container was started anew): its place is taken again, as after a reboot. **A wrong word
        corrupts the store.**

    With $GISMO_NODE_MARKER (in pods that got the store from a device plugin) host_id is the one that stands there.

    Errors: NotAStore, Incompatible, CorruptStore, HostIdInUse, NodeNotReady, StorePermissionError, SystemCallError,
    MediaError.
    """
    library = _native.load()
    where = _encode_path(path)
    if host_id is None and state_dir is None and not read_only:
        marker = node_marker.given(os.fsdecode(where))
        if marker is not None:
            node_marker.check(marker, _probe(library, where).store_uuid)
            host_id = marker.host_id
    options = _native.OpenOptions(
        state_dir=_encode_path_of("a state directory", state_dir) if state_dir is not None else None,
        host_id=-1 if host_id is None else _integer("host_id", host_id, 31),
        read_only=bool(read_only),
        restarted=bool(restarted),
    )
    pointer = ctypes.c_void_p()
    status = library.slow.open(where, options, pointer)
    if status:
        raise library.error(status)
    native = NativeStore(library, pointer)
    try:
        return Store(native, os.fsdecode(where))
    except BaseException:
        native.close()
        raise


def format(  # noqa: A001 - the name fixed by the design, as in gismo_core.format(...)
    path: _Path,
    *,
    size: int | None = None,
    max_objects: int | None = None,
    max_hosts: int | None = None,
    coherence: str = "hardware",
    mode: int = 0o600,
    force: bool = False,
    populate: bool = True,
    progress: Callable[[int, int], object] | None = None,
    store_uuid: uuid.UUID | None = None,
) -> records.StoreInfo:
    """Make an empty store on a file or DAX device and tell what was made.

    size: bytes; a file is made that large. None: what the file or device has.
    max_objects, max_hosts: None for a default from the size; at most 64 hosts.
    coherence: "hardware" (the hosts' caches are coherent, or there is one host) or "software".
    mode: permission bits of the file, also of one that was there; the umask does not apply. A device keeps its own.
    force: overwrite what is there, even if it is not a store, or is one. Without it: StoreExists.
    populate: touch every page of a file now, so that no later put can find the file system full.
    progress: called as progress(done_bytes, total_bytes) at least every 256 MiB; an exception in it stops.
    store_uuid: the name that the store gets; None for a random one.

    Errors: StoreExists (something is there: `force`), InvalidArgument (sizes), StoreBusy (somebody has it open),
    MediaError (no room on the file system), StorePermissionError, NotAStore (no file and no DAX device),
    SystemCallError.
    """
    library = _native.load()
    if coherence not in ("hardware", "software"):
        raise errors.InvalidArgument(f"coherence is 'hardware' or 'software', not {coherence!r}")
    options = _native.FormatOptions(
        size_bytes=_integer("size", size or 0, 63),
        max_objects=_integer("max_objects", max_objects or 0, 63),
        max_hosts=_integer("max_hosts", max_hosts or 0, 31),
        coherence=coherence == "software",
        mode=_integer("mode", mode, 12),
        force=force,
        populate=populate,
    )
    if store_uuid is not None:
        if not isinstance(store_uuid, uuid.UUID):
            raise errors.InvalidArgument(f"store_uuid is a uuid.UUID, not {store_uuid!r}")
        options.store_uuid[:] = store_uuid.bytes
    if progress is not None and not callable(progress):
        raise errors.InvalidArgument(f"progress is called as progress(done_bytes, total_bytes); {progress!r} cannot be")
    made = ctypes.create_string_buffer(16)
    where = _encode_path(path)

    def call(report: Callable[..., int]) -> errors.GismoError | None:
        status = library.slow.format(where, options, _native.ProgressFunction(report), None, made)
        return library.error(status) if status else None  # the message is this thread's

    def seen(done_bytes: int, total_bytes: int, _: Any) -> None:
        if progress is not None:
            progress(done_bytes, total_bytes)

    from gismo_core._aside import run_aside  # here: a worker of Ray never needs it, and starts the sooner

    failed = run_aside(call, seen)
    if failed is not None:
        raise failed
    return _probe(library, where)


def probe(path: _Path | None = None) -> records.StoreInfo:
    """Read what a medium holds without opening it: no lane is taken and nothing is written."""
    return _probe(_native.load(), _encode_path(path))


class Store:
    """An open store. Safe to use from several threads and after fork(); made by gismo_core.open.

    After close(), every method raises StoreClosed; buffers of views stay valid until they are dropped.
    """

    __slots__ = (
        "__weakref__",
        "_c_create",
        "_c_delete",
        "_c_get",
        "_c_put_one",
        "_info",
        "_native",
        "_path",
        "_raw_info",
    )

    def __init__(self, native: NativeStore, path: str) -> None:
        library = native.library
        self._native = native
        self._path = path
        raw = _native.Info()
        status = library.slow.get_info(native.pointer, raw)
        if status:
            raise library.error(status)
        self._raw_info = raw
        self._info: records.StoreInfo | None = None
        # With software coherence a get invalidates and a seal flushes the whole extent: not with the GIL held.
        software = bool(raw.coherence)
        native.seal = native.careful(library.slow.seal) if software else library.quick.seal
        self._c_create: Callable[..., int] = library.quick.create
        self._c_get: Callable[..., int] = native.careful(library.slow.get) if software else library.quick.get
        self._c_put_one: Callable[..., int] = library.put_one
        self._c_delete: Callable[..., int] = library.delete

    @property
    def info(self) -> records.StoreInfo:
        """Identity and geometry, as formatted. Works after close."""
        if self._info is None:
            from gismo_core import records

            self._info = records.store_info(self._raw_info)
        return self._info

    @property
    def store_uuid(self) -> uuid.UUID:
        """Names the store, as info.store_uuid does. Works after close."""
        return uuid.UUID(bytes=bytes(self._raw_info.store_uuid))

    @property
    def host_id(self) -> int:
        """This host's place in the store (its lane), 0 to 63."""
        raw = _native.CStats()
        self._slow("get_stats", raw)
        return int(raw.lane)

    @property
    def path(self) -> str:
        """What it was opened with."""
        return self._path

    @property
    def state_dir(self) -> Path | None:
        """The directory where the processes of this host meet over this store; None if opened read-only."""
        if self._native.closed:
            raise self._error(errors.ECLOSED)
        where = self._native.library.slow.state_dir(self._native.pointer)
        return Path(os.fsdecode(where)) if where else None

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._native.closed

    # ---- objects ---------------------------------------------------------------------------------

    def put(
        self,
        buffers: Buffer | Sequence[Buffer],
        *,
        name: str | None = None,
        tag: int = 0,
        wait_s: float | None = None,
    ) -> Handle:
        """Copy one bytes-like object, or a list or tuple of them, into a new object and seal it.

        The buffers lie end to end, each 64-byte aligned; View.buffers gives them back. A CRC32C is computed on
        the way. name: at most 255 bytes of UTF-8; NameTaken if an object has it. tag: 64 bits, for accounting.
        wait_s: when full, wait this many seconds for room (math.inf: for ever); default: do not.

        Errors: StoreFull, NameTaken, InvalidArgument (not bytes-like, not C-contiguous), StoreClosed.
        """
        if type(buffers) is bytes and len(buffers) < _QUICK_PUT_BYTES and wait_s is None:
            at_once = _AT_ONCE_REFERENCE if name is None and not tag else ctypes.byref(_create_options(name, tag))
            made = _CRawHandle()
            status = self._c_put_one(self._native.pointer, buffers, len(buffers), at_once, made)
            if not status:
                handle = _new_handle(Handle)
                _set_raw(handle, made.raw)
                return handle
            if status != errors.EFULL:
                raise self._error(status, errors.NameTaken)
        native = self._native
        if native.closed:
            raise self._error(errors.ECLOSED)
        raw = _CHandle()
        options = _create_options(name, tag)
        with Pinned(buffers) as pinned:
            status = errors.EFULL
            if pinned.total_bytes < _QUICK_PUT_BYTES and wait_s is None:
                status = native.library.quick_put(native.pointer, pinned.entries, pinned.count, options, raw)
            if status == errors.EFULL:  # room that is coming back is waited for without the GIL
                put = native.library.slow_put
                status = self._waiting(
                    lambda wait_ns: put(native.pointer, pinned.entries, pinned.count, _wait(options, wait_ns), raw),
                    errors.EFULL,
                    wait_s,
                )
        if status:
            raise self._error(status, errors.NameTaken)
        return unchecked(*first_48(raw))

    def create(
        self, nbytes: int | Sequence[int], *, name: str | None = None, tag: int = 0, wait_s: float | None = None
    ) -> Draft:
        """Room for an object of `nbytes` (0 or more) that is written in place: fill draft.buffer, then draft.seal().

        nbytes: of one buffer; or a list of the lengths of several, which lie in draft.buffer end to end, each 64-byte
        aligned, and which View.buffers gives back.
        Use as `with store.create(n) as draft:`; leaving the block without a seal gives the room back.
        name, tag, wait_s and errors as for put. No CRC unless seal(crc=True).
        """
        native = self._native
        lengths = None
        if type(nbytes) is not int or nbytes >> 63:
            if isinstance(nbytes, (list, tuple)):
                lengths = _lengths(nbytes)
                nbytes = 0  # the core adds them up
            else:
                nbytes = _integer("nbytes", nbytes, 63)
        raw = _CObject()
        status = errors.EFULL
        if name is None and not tag and wait_s is None and lengths is None:
            status = self._c_create(native.pointer, nbytes, _AT_ONCE, raw)
        if status == errors.EFULL:
            if native.closed:
                raise self._error(errors.ECLOSED)
            options = _create_options(name, tag)
            if lengths is not None:
                options.buffers, options.buffer_bytes = len(lengths), lengths
            create = native.library.slow.create
            status = self._waiting(
                lambda wait_ns: create(native.pointer, nbytes, _wait(options, wait_ns), raw), errors.EFULL, wait_s
            )
        if status:
            raise self._error(status, errors.NameTaken)
        draft = _new_draft(Draft)
        draft._store = native
        draft._draft = raw
        draft._epoch = native.epoch
        draft._memory = None
        return draft

    def get(self, handle: Handle, *, keep: object = None) -> View:
        """Map a sealed object and pin it, without a copy: the cost does not depend on its size.

        keep: kept alive for as long as any buffer of the view is, like the pin itself.

        Errors: ObjectGone (deleted, or of another store), InvalidArgument (a forged handle), StoreClosed, MediaError.
        """
        if handle.__class__ is not Handle:
            raise _not_a_handle(handle)
        native = self._native
        raw = _CView()
        status = self._c_get(native.pointer, handle.raw, raw)
        if status:
            raise self._error(status)
        length = raw.length
        exporter = pin_exporters[length.bit_length()](raw.data)
        exporter.native = native
        exporter.slot = raw.slot
        if keep is not None:
            exporter.keep = keep
        view = _new_view(View)
        view._a_native = native
        view._b_memory = memoryview(exporter).cast("B")[:length].toreadonly()
        view._c_view = raw
        view._d_handle = handle
        view._e_meta = None
        return view

    def delete(self, handle: Handle) -> None:
        """From now on no get of this host succeeds, on others within 10 ms; views stay valid, and the room comes
        back when the last is gone. ObjectGone if it was deleted already. If this whole host dies in the next 10 ms, it may
        not have happened."""
        if handle.__class__ is not Handle:
            raise _not_a_handle(handle)
        status = self._c_delete(self._native.pointer, handle.raw)
        if status:
            raise self._error(status)

    def lookup(self, name: str, wait_s: float | None = None) -> Handle:
        """The handle of the object with this name; where several hosts gave it, the lowest host's.

        wait_s: wait this many seconds for it to appear (math.inf: for ever). NameNotFound otherwise; StoreClosed,
        InvalidArgument.
        """
        native = self._native
        if native.closed:
            raise self._error(errors.ECLOSED)
        text = _encode_name(name)
        raw = _native.CHandle()
        lookup = native.library.slow.lookup
        status = self._waiting(
            lambda wait_ns: lookup(native.pointer, text, len(text), wait_ns, raw), errors.ENOTFOUND, wait_s
        )
        if status:
            raise self._error(status)
        return unchecked(*first_48(raw))

    def find(self, buffer: Buffer) -> Handle | None:
        """The object that a buffer (a view, or an array made over one) lies in, or None if it lies elsewhere."""
        native = self._native
        if native.closed:
            raise self._error(errors.ECLOSED)
        held = hold(buffer)
        try:
            raw = _native.CHandle()
            with native:
                status = native.library.slow.find_pinned(native.pointer, held.buf, raw)
        finally:
            _native.py_release_buffer(held)
        if status in (errors.ENOTFOUND, errors.EINVAL):
            return None
        if status:
            raise self._error(status)
        return unchecked(*first_48(raw))

    # ---- seeing ----------------------------------------------------------------------------------

    def stats(self) -> records.Stats:
        """Bytes, objects, pins and counters of this moment (scans the slots: milliseconds for 10**6 objects)."""
        from gismo_core import records

        raw = _native.CStats()
        self._slow("get_stats", raw)
        return records.stats(raw)

    def hosts(self) -> tuple[records.HostInfo, ...]:
        """All hosts that ever joined and have not been taken out, by host id."""
        from gismo_core import records

        found = []
        for host_id in range(self._raw_info.max_hosts):
            raw = _native.CHostInfo()
            if self._slow("host", host_id, raw, end=errors.ENOTFOUND):
                break
            if raw.state != records.HostState.FREE:
                found.append(records.host_info(raw))
        return tuple(found)

    def processes(self) -> tuple[records.ProcessInfo, ...]:
        """The processes of this host that have the store open."""
        from gismo_core import records

        cursor = ctypes.c_uint32(0)
        found: list[records.ProcessInfo] = []
        while True:
            raw = _native.CProcessInfo()
            if self._slow("process", cursor, raw, end=errors.ENOTFOUND):
                return tuple(found)
            found.append(records.process_info(raw))

    def objects(self) -> Iterator[records.ObjectInfo]:
        """All objects of all hosts, in the order of their slots; those that change meanwhile may be missed."""
        from gismo_core import records

        cursor = ctypes.c_uint64(0)
        raw = _native.CObjectInfo()
        while not self._next(cursor, raw):
            yield records.object_info(raw)

    def sealed(self, *, tag: int = 0, mask: int = 0) -> list[records.SealedObject]:
        """The sealed objects whose tag, masked, is `tag`: a quick scan for those who look at many (0.1 us each).

        What was sealed before the call and is not deleted is not missed.
        """
        from gismo_core import records

        found: list[records.SealedObject] = []
        for part in self._list(tag, mask):
            found += records.sealed_objects(part)
        return found

    def follow(self, *, tag: int = 0, mask: int = 0) -> Follower:
        """Tells again and again which of what sealed() gives is new and which is gone."""
        from gismo_core.following import Follower

        bound = _integer("mask", mask, 64), _integer("tag", tag, 64)
        return Follower(self.info.max_objects, lambda seen: self._changes(bound, seen))

    def count_sealed(self, *, tag: int = 0, mask: int = 0) -> int:
        """How many sealed() gives."""
        return sum(len(part) for part in self._list(tag, mask)) // _BRIEF_BYTES

    def _list(self, tag: int, mask: int) -> Iterator[memoryview]:
        """gismo_brief records, end to end; a part is good until the next one is asked for."""
        cursor = ctypes.c_uint64(0)
        bound = _integer("mask", mask, 64), _integer("tag", tag, 64)
        raw = (_native.CBrief * _LIST_AT_ONCE)()
        memory = memoryview(raw).cast("B")
        native = self._native
        while True:
            with native:
                count: int = native.library.slow.list(native.pointer, cursor, *bound, raw, _LIST_AT_ONCE)
            if count < 0:
                raise self._error(count)
            yield memory[: count * _BRIEF_BYTES]
            if count < _LIST_AT_ONCE:
                return

    def _changes(self, bound: tuple[int, int], seen: Any) -> Iterator[memoryview]:
        """gismo_brief records, end to end, of what differs from `seen`; a part is good until the next one is asked for."""
        cursor = ctypes.c_uint64(0)
        raw = (_native.CBrief * _LIST_AT_ONCE)()
        memory = memoryview(raw).cast("B")
        native = self._native
        while cursor.value < len(seen):
            with native:
                count: int = native.library.slow.follow(native.pointer, cursor, *bound, seen, raw, _LIST_AT_ONCE)
            if count < 0:
                raise self._error(count)
            yield memory[: count * _BRIEF_BYTES]

    def peek(self, handle: Handle, nbytes: int, offset: int = 0) -> bytes:
        """A copy of some bytes of a sealed object, without pinning it: for looking at many small heads.

        Errors: ObjectGone (deleted before the copy was complete), InvalidArgument (beyond the payload).
        """
        if handle.__class__ is not Handle:
            raise _not_a_handle(handle)
        out = ctypes.create_string_buffer(_integer("nbytes", nbytes, 31))
        self._slow("peek", handle.raw, _integer("offset", offset, 63), nbytes, out)
        return out.raw

    def peek_many(self, raw_handles: Sequence[bytes], nbytes: int) -> list[bytes | None]:
        """peek() of the first bytes of many by one call, some 0.5 us each: None for each that peek() would refuse.

        raw_handles: as Handle.raw, as the store itself gave them; nbytes: at least 1.
        """
        joined = b"".join(raw_handles)
        if len(joined) != len(raw_handles) * _native.HANDLE_BYTES or nbytes < 1:
            raise errors.InvalidArgument("peek_many takes raw handles of 48 bytes and at least 1 byte to read of each")
        results = (ctypes.c_int * len(raw_handles))()
        out = ctypes.create_string_buffer(len(raw_handles) * _integer("nbytes", nbytes, 31))
        self._slow("peek_many", joined, len(raw_handles), nbytes, out, results)
        heads = out.raw
        return [
            None if result else heads[at : at + nbytes]
            for result, at in zip(results, range(0, len(heads), nbytes), strict=True)
        ]

    def tags(self) -> tuple[records.TagInfo, ...]:
        """What the objects of each tag take, the largest first (a scan: about a second for 10**6 objects)."""
        return self.use()[0]

    def use(self) -> tuple[tuple[records.TagInfo, ...], dict[int, int]]:
        """tags(), and by the same scan how many objects each other host holds or lately held, by host id."""
        tags, pinned = self._scan_use(math.inf)
        return tuple(sorted(tags, key=lambda one: one.extent_bytes, reverse=True)), pinned

    def _scan_use(self, until_s: float) -> tuple[list[records.TagInfo], dict[int, int]]:
        from gismo_core import records

        totals: dict[int, list[int]] = {}
        pinned: dict[int, int] = {}
        cursor = ctypes.c_uint64(0)
        raw = _native.CObjectInfo()
        seen = 0
        while not self._next(cursor, raw):
            tag, extent_bytes, pinned_hosts, pins = records.object_use(raw)
            total = totals.setdefault(tag, [0, 0, 0])
            total[0] += 1
            total[1] += extent_bytes
            total[2] += pins
            while pinned_hosts:
                host = (pinned_hosts & -pinned_hosts).bit_length() - 1
                pinned[host] = pinned.get(host, 0) + 1
                pinned_hosts &= pinned_hosts - 1
            seen += 1
            if seen % 256 == 0 and time.monotonic() > until_s:
                break
        return [records.TagInfo(tag, *total) for tag, total in totals.items()], pinned

    def fsck(
        self,
        verify: bool = False,
        repair: bool = False,
        on_finding: Callable[[records.Finding], object] | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> records.FsckReport:
        """Check the whole store. verify: payloads against their CRCs too. repair: mend what can be mended.

        on_finding is called for each finding as it is made, progress(verified_bytes) about every 64 MiB of payloads.
        Problems are reported, not raised.
        """
        from gismo_core import records
        from gismo_core._aside import run_aside

        findings: list[records.Finding] = []
        raw = _native.CFsckResult()
        flags = (_native.FSCK_VERIFY if verify else 0) | (_native.FSCK_REPAIR if repair else 0)
        flags |= _native.FSCK_TELL if progress is not None else 0

        def call(report: Callable[..., int]) -> int:
            return self._slow("fsck", flags, _native.FsckFunction(report), None, raw, end=errors.ECORRUPT)

        def seen(severity: int, code: bytes, message: bytes, slot: int, _: Any) -> None:
            if severity == _native.FSCK_PROGRESS:
                if progress is not None:
                    progress(slot)
                return
            found = records.finding(severity, code, message, slot)
            findings.append(found)
            if on_finding is not None:
                on_finding(found)

        # It cannot be stopped, and what --repair began shall not go on unseen.
        status = run_aside(call, seen, abandon=not repair)
        return records.fsck_report(raw, status == errors.OK, tuple(findings))

    def evict_host(
        self,
        host_id: int,
        confirmed_off: bool = False,
        *,
        force: bool = False,
        boot_id: uuid.UUID | None = None,
        wait_s: float | None = 0.0,
        progress: Callable[[records.Eviction], None] | None = None,
    ) -> records.Eviction:
        """Take a host that is gone out of the store, so that its room can be used again. Its sealed objects stay.

        First it is fenced: only if its heartbeat stood still at ten looks, one a second, unless `force`. From then on every
        call of its processes is Fenced. What it could still write is used again when it is proven to have stopped: all its
        processes have closed the store, or it came back by itself, or you know it: `confirmed_off`. **A wrong word corrupts
        the store.** boot_id: only if it is that boot of the host (HostInfo has it): NameNotFound if it has been back since.
        StoreBusy if that is not so after `wait_s` seconds (None: for ever); it can be called again.
        `progress` is told after each try how far it came. Protocol: P10 of FORMAT.md.
        """
        from gismo_core import records

        number = _integer("host_id", host_id, 31)
        flags = (_native.EVICT_CONFIRMED_OFF if confirmed_off else 0) | (_native.EVICT_FORCE if force else 0)
        if boot_id is not None and not isinstance(boot_id, uuid.UUID):
            raise errors.InvalidArgument(f"boot_id is a uuid.UUID, not {boot_id!r}")
        boot = None if boot_id is None else boot_id.bytes
        end = None if wait_s is None else time.monotonic() + wait_s
        while True:
            raw = _native.CEvictResult()
            busy = self._slow("evict_host", number, boot, flags, raw, end=errors.EBUSY) == errors.EBUSY
            if progress is not None:
                progress(records.eviction(raw))
            if not busy:
                return records.eviction(raw)
            if end is not None and time.monotonic() >= end:
                raise self._error(errors.EBUSY)
            time.sleep(_EVICT_AGAIN_S)

    # ---- ending ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the store: unsealed objects are aborted. Exported buffers stay valid until dropped. Repeatable."""
        self._c_create = self._c_get = self._c_put_one = self._c_delete = _closed
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a Store cannot be pickled: send its path and call gismo_core.open(path) there")

    def __repr__(self) -> str:
        return f"<gismo Store {self._path} {self.store_uuid}{', closed' if self.closed else ''}>"

    # ---- inside ----------------------------------------------------------------------------------

    def _slow(self, function: str, *arguments: Any, end: int = errors.OK) -> int:
        """Call gismo_<function> with the GIL released; OK or `end` come back, all else is raised."""
        native = self._native
        with native:
            status: int = getattr(native.library.slow, function)(native.pointer, *arguments)
        if status and status != end:
            raise self._error(status)
        return status

    def _next(self, cursor: ctypes.c_uint64, raw: _native.CObjectInfo) -> int:
        native = self._native
        if native.closed:
            raise self._error(errors.ECLOSED)
        status: int = native.library.quick.next(native.pointer, cursor, raw)
        if status and status != errors.ENOTFOUND:
            raise self._error(status)
        return status

    def _waiting(self, call: Callable[[int], int], unready: int, wait_s: float | None) -> int:
        """call(wait_ns) until it is done or the time is over, in slices between which Python sees signals."""
        native = self._native
        if wait_s is None:
            with native:
                return call(0)
        try:
            sound = wait_s >= 0
        except TypeError:
            sound = False
        if not sound:
            raise errors.InvalidArgument(f"wait_s is a number of seconds, 0 or more, or math.inf, not {wait_s!r}")
        end_ns = time.monotonic_ns() + int(wait_s * 1e9) if wait_s < _FOR_EVER_S else None
        while True:
            left_ns = _WAIT_SLICE_NS if end_ns is None else max(0, end_ns - time.monotonic_ns())
            with native:
                status = call(min(left_ns, _WAIT_SLICE_NS))
            if status != unready or left_ns == 0:
                return status

    def _error(self, status: int, exists: type[errors.GismoError] = errors.StoreExists) -> errors.GismoError:
        native = self._native
        if native.closed:
            return errors.StoreClosed(f"the store {self._path} is closed in this process; open it again")
        if status == errors.EFULL:
            return native.library.error(status, find_holders=self._find_holders)
        return native.library.error(status, exists=exists)

    def _find_holders(self) -> tuple[records.Holder, ...]:
        """Who holds the room: processes by pins and writes, tags by bytes (of what a scan of 50 ms sees)."""
        from gismo_core import records

        try:
            tags, _ = self._scan_use(time.monotonic() + _HOLDERS_SCAN_S)
            return records.holders(self.processes(), tags, _HOLDERS_MAX)
        except errors.GismoError:
            return ()  # closed or failed meanwhile: the numbers of the error stand without it


def _closed(*_: Any) -> int:
    return errors.ECLOSED


def _probe(library: _native.Library, where: bytes) -> records.StoreInfo:
    from gismo_core import records

    raw = _native.Info()
    status = library.slow.probe(where, raw)
    if status:
        raise library.error(status)
    return records.store_info(raw)


def _encode_path(path: _Path | None) -> bytes:
    if path is None:
        path = os.environ.get("GISMO_STORE", "")
        if not path:
            raise errors.InvalidArgument("no store was named: give its path, or set GISMO_STORE")
    return _encode_path_of("a store", path)


def _encode_path_of(what: str, path: _Path) -> bytes:
    try:
        where = os.fsencode(path)
    except TypeError as error:
        raise errors.InvalidArgument(f"{what} is named by a path, not {path!r}") from error
    if not where or b"\0" in where:
        raise errors.InvalidArgument(f"{path!r} is no path of {what}")
    return where


def _encode_name(name: Any) -> bytes:
    if not isinstance(name, str):
        raise errors.InvalidArgument(f"a name is a str, not {type(name).__name__}")
    try:
        text = name.encode()
    except UnicodeEncodeError as error:
        raise errors.InvalidArgument(f"the name {name!r} cannot be written as UTF-8: {error}") from error
    if not 1 <= len(text) <= _native.NAME_MAX:
        raise errors.InvalidArgument(f"a name has 1 to {_native.NAME_MAX} bytes of UTF-8, this one has {len(text)}")
    return text


def _integer(what: str, value: Any, bits: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise errors.InvalidArgument(f"{what} is a whole number, not {value!r}") from None
    if number >> bits:
        raise errors.InvalidArgument(f"{what} is 0 to 2**{bits} - 1, not {number}")
    return number


def _create_options(name: str | None, tag: int) -> _native.CreateOptions:
    options = _native.CreateOptions(tag=_integer("tag", tag, 64), wait_ns=_WAIT_NEVER)
    if name is not None:
        options.name = text = _encode_name(name)
        options.name_bytes = len(text)
    return options


def _lengths(lengths: Sequence[int]) -> Any:
    if not 1 <= len(lengths) <= _BUFFERS_MAX:
        raise errors.InvalidArgument(f"an object has 1 to {_BUFFERS_MAX} buffers, not {len(lengths)}")
    return (ctypes.c_uint64 * len(lengths))(*(_integer("nbytes", length, 63) for length in lengths))


_AT_ONCE = _native.CreateOptions(wait_ns=_WAIT_NEVER)  # never changed: shared by all calls
_AT_ONCE_REFERENCE = ctypes.byref(_AT_ONCE)


def _wait(options: _native.CreateOptions, wait_ns: int) -> _native.CreateOptions:
    options.wait_ns = wait_ns
    return options


def _not_a_handle(value: Any) -> errors.InvalidArgument:
    advice = "; Handle.parse(text) makes one of its text" if isinstance(value, str) else ""
    return errors.InvalidArgument(f"a Handle is needed, not {type(value).__name__}{advice}")
