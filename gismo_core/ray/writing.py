"""Writing: a value of 100 KiB or more becomes a record in the store, and Ray carries a descriptor of it.

Takes the place of SerializationContext.serialize for the callers of the allow list, and does what Ray does where the
store is not to be used; docs/ray.md, Writing.
"""

from __future__ import annotations

import functools
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from gismo_core import _native, errors
from gismo_core._buffers import hold
from gismo_core.ray import metrics, placed, reading, record, session
from gismo_core.ray.compat import Internals
from gismo_core.ray.record import Form, Kind
from gismo_core.views import Draft

# Ray's own limit for values that it inlines (max_direct_call_object_size).
THRESHOLD_BYTES = 100 * 1024
# A buffer in the store that is smaller than this is copied: naming another record keeps all of that one alive.
_PASS_ON_BYTES = 64 * 1024
_PASS_ON_SHARE = 16
_FULL_WAIT_S = 0.2
_BUFFERS_MAX = 1 << 20
_INT = 1 << 63  # msgpack has these
_COPIED = f"{__package__}.tensors".encode()  # what a pickle that needs tensors.copied has in it


class _Thread(threading.local):
    def __init__(self) -> None:
        self.held: list[Any] = []  # tokens of arguments, until .remote() returns
        self.promised: list[Promised] = []  # records of ray.put, until Ray has named its object
        self.serializing = False
        self.off = False


_thread = _Thread()


def serializing() -> bool:
    """Is this thread serializing a value for the store?"""
    return _thread.serializing


class Descriptor:
    """What Ray carries instead of the value. token: None where the object that carries it is its own token."""

    __slots__ = ("raw_handle", "token")

    def __init__(self, raw_handle: bytes, token: Any) -> None:
        self.raw_handle = raw_handle
        self.token = token

    def __reduce__(self) -> tuple[Any, ...]:
        return reading.load, (self.raw_handle, self.token)


def make_serialize(internals: Internals) -> Callable[[Any, Any], Any]:
    """The function that replaces SerializationContext.serialize."""
    original = internals.context.serialize
    serialization = internals.serialization
    callers = internals.callers
    task_error = serialization.RayTaskError
    actor_handle = internals.actor_handle
    worker_mode = internals.worker_mode
    get_frame = sys._getframe

    def serialize(self: Any, value: Any) -> Any:
        if value is None or value is True or value is False or (type(value) is int and -_INT <= value < _INT):
            return original(self, value)  # what most small tasks return, in as little time as can be
        here = session.current()
        if here is None or self.worker is not here._worker or _thread.off:
            return original(self, value)
        try:
            caller = id(get_frame(1).f_code)
        except ValueError:  # called from C++ alone
            caller = 0
        kind = callers.get(caller)
        if kind is None or (kind is Kind.RETURN and self.worker.mode != worker_mode):
            return original(self, value)
        if type(value) is bytes or isinstance(value, bytes):
            if len(value) < THRESHOLD_BYTES:
                return original(self, value)
            written = write(here, kind, Form.BYTES, b"", b"", [memoryview(value)])
            return original(self, value) if written is None else describe(self, internals, written, [])
        if isinstance(value, (task_error, actor_handle)):
            return original(self, value)
        return serialize_object(self, internals, here, kind, value)

    serialize.__wrapped__ = original  # type: ignore[attr-defined]
    return serialize


def serialize_object(context: Any, internals: Internals, here: session.Session, kind: Kind, value: Any) -> Any:
    """As SerializationContext._serialize_to_msgpack, with the buffers collected first."""
    serialization = internals.serialization
    objects: list[Any] = []

    def take(item: Any) -> int:
        objects.append(item)
        return len(objects) - 1

    is_array = _is_plain_array(value, serialization.pickle.CloudPickler.dispatch)
    if is_array:
        objects.append(value)
        packed = _packed_object(serialization)
    else:
        packed = serialization.MessagePackSerializer.dumps(value, take)
    constants = serialization.ray_constants
    if not objects:
        if len(packed) >= THRESHOLD_BYTES:
            written = write(here, kind, Form.OBJECT, packed, b"", [])
            if written is not None:
                return describe(context, internals, written, [])
        return serialization.MessagePackSerializedObject(
            constants.OBJECT_METADATA_TYPE_CROSS_LANGUAGE, packed, [], None
        )

    buffers: list[Any] = []
    contained: Any = set()
    if is_array:
        # There is nothing in it that only Ray's pickler knows, and this one takes a tenth of the time.
        in_band = pickle.dumps(objects, protocol=5, buffer_callback=buffers.append)
    else:
        before, _thread.serializing = _thread.serializing, True
        try:
            context.set_in_band_serialization()
            in_band = serialization.pickle.dumps(objects, protocol=5, buffer_callback=buffers.append)
        except Exception:
            context.get_and_clear_contained_object_refs()
            raise
        finally:
            _thread.serializing = before
            context.set_out_of_band_serialization()
        contained = context.get_and_clear_contained_object_refs()

    total = len(packed) + len(in_band)
    if total < THRESHOLD_BYTES:
        for buffer in buffers:
            total += memoryview(buffer).nbytes
    if total >= THRESHOLD_BYTES:
        views = _contiguous(buffers)
        if views is None:
            metrics.fell_back("not contiguous")
        elif len(views) < _BUFFERS_MAX - record.FIXED_BUFFERS:
            written = write(here, kind, Form.OBJECT, packed, in_band, views)
            if written is not None:
                return describe(context, internals, written, list(contained))

        if _COPIED in in_band:  # whoever reads what went Ray's own way may have no Gismo
            return internals.context.serialize.__wrapped__(context, value)

    writer = serialization.Pickle5Writer()
    for buffer in buffers:
        writer.buffer_callback(buffer)
    metadata = constants.OBJECT_METADATA_TYPE_PYTHON
    inner = serialization.Pickle5SerializedObject(metadata, in_band, writer, contained)
    return serialization.MessagePackSerializedObject(metadata, packed, [], inner)


@functools.cache
def _packed_object(serialization: Any) -> bytes:
    """What Ray's msgpack makes of a value that is one object for the pickler."""
    packed: bytes = serialization.MessagePackSerializer.dumps(object(), lambda _: 0)
    return packed


def _is_plain_array(value: Any, dispatch: Any) -> bool:
    """A NumPy array of numbers, which nobody has given a serializer of its own."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray:
        return False
    kind = value.dtype
    return kind.isbuiltin == 1 and not kind.hasobject and kind.metadata is None and type(value) not in dispatch


def _contiguous(buffers: list[Any]) -> list[memoryview] | None:
    """The buffers as memoryviews, or None where one is neither C- nor Fortran-contiguous."""
    views = []
    for buffer in buffers:
        view = memoryview(buffer)
        if not view.contiguous:
            return None
        views.append(view)
    return views


def describe(context: Any, internals: Internals, descriptor: Descriptor, contained: list[Any]) -> Any:
    """The small value that Ray carries: constant in size, with the token and the value's own references in it."""
    serialization = internals.serialization
    metadata = serialization.ray_constants.OBJECT_METADATA_TYPE_PYTHON
    packed = _packed_object(serialization)
    if descriptor.token is None:
        # Nothing in it that only Ray's pickler knows, and this one takes a tenth of the time.
        in_band = pickle.dumps([descriptor], protocol=5)
        inner = serialization.Pickle5SerializedObject(metadata, in_band, serialization.Pickle5Writer(), set())
    else:
        inner = context._serialize_to_pickle5(metadata, [descriptor])
    return serialization.MessagePackSerializedObject(metadata, packed, contained, inner)


def write(
    here: session.Session, kind: Kind, form: Form, packed: bytes, in_band: bytes, views: list[memoryview]
) -> Descriptor | None:
    """Put a record; None where Ray's own way is to be taken (no token, no room), which was then said once."""
    token = None
    if kind is not Kind.PUT:
        token = here.leased_token() if kind is Kind.RETURN else here.own_token()
        if token is None:
            metrics.fell_back("no token")
            return None
    pieces: list[record.Piece] = []
    own: list[memoryview] = []
    foreign: dict[bytes, int] = {}
    pinned: list[Any] = []  # the records passed on: pinned until this one is sealed and names them
    for view in views:
        text, shape = record.shape_of(view)
        raw = view if view.ndim == 1 and view.format == "B" else _raw(view)
        passed = _find(here, raw) if len(raw) >= _PASS_ON_BYTES else None
        if passed is None:
            pieces.append(record.Piece(None, 0, len(raw), text, shape))
            own.append(raw)
        else:
            target, offset = passed
            pinned.append(target)
            index = foreign.setdefault(target.handle.raw, len(foreign))
            pieces.append(record.Piece(index, offset, len(raw), text, shape))
    name = bytes(record.TOKEN_BYTES) if token is None else token.binary()
    header = session.header(here, kind, form, name, tuple(foreign))
    parts: list[Any] = [header.pack(), record.pack_plan(pieces), packed, in_band, *own]
    tag = record.tag_of(header.job)
    try:
        if token is None:
            return _promise(here, parts, tag, pinned)
        handle = _unless_full(here, lambda wait_s: here.store.put(parts, tag=tag, wait_s=wait_s))
    except errors.GismoError as error:
        if token is not None:
            here.put_back(token, kind)
        metrics.fell_back("full" if isinstance(error, errors.StoreFull) else "error")
        if isinstance(error, errors.StoreFull):
            session.Warnings.once(
                "full", "the pool is full, so objects go to Ray's own store until there is room again: %s", error
            )
        else:
            session.Warnings.once("write", "writing failed, so the object goes to Ray's own store: %s", error)
        return None
    if kind is Kind.ARGUMENT:
        _thread.held.append(token)
    return Descriptor(handle.raw, token)


_Result = TypeVar("_Result")


def _unless_full(here: session.Session, make: Callable[[float | None], _Result]) -> _Result:
    try:
        return make(None)
    except errors.StoreFull:
        here.pool_is_full()
        return make(_FULL_WAIT_S)


class Promised:
    """A record that is complete but for the name of the object that Ray is about to make of its descriptor.

    Sealed once that is known: until then nobody has the object, so nobody can miss the record.
    """

    __slots__ = ("draft", "pinned")

    def __init__(self, draft: Draft, pinned: list[Any]) -> None:
        self.draft = draft
        self.pinned = pinned

    def seal(self, here: session.Session, reference: Any) -> None:
        """Ray has named its object."""
        self.draft.write(record.TOKEN_AT, reference.binary())
        self.draft.seal()
        here.propose_when_gone(reference)

    def abort(self) -> None:
        """Ray made none after all."""
        self.draft.abort()


def _promise(here: session.Session, parts: list[Any], tag: int, pinned: list[Any]) -> Descriptor:
    lengths = [memoryview(part).nbytes for part in parts]
    draft = _unless_full(here, lambda wait_s: here.store.create(lengths, tag=tag, wait_s=wait_s))
    draft.fill(parts)
    _thread.promised.append(Promised(draft, pinned))
    return Descriptor(draft.promised_handle.raw, None)


def keeping_promises(original: Callable[..., Any]) -> Callable[..., Any]:
    """Worker.put_object, made to seal the record of what it puts once it knows the object's name."""
    thread = _thread

    @functools.wraps(original)
    def put_object(*arguments: Any, **options: Any) -> Any:
        promised = thread.promised
        mark = len(promised)
        try:
            reference = original(*arguments, **options)
            if len(promised) == mark:
                return reference
            here = session.current()
            try:
                while len(promised) > mark and here is not None:
                    promised[-1].seal(here, reference)
                    promised.pop()
            except errors.GismoError as error:
                metrics.fell_back("error")
                session.Warnings.once("seal", "writing failed, so the object goes to Ray's own store: %s", error)
                return _without_the_store(original, arguments, options)
            return reference
        finally:
            while len(promised) > mark:
                promised.pop().abort()

    return put_object


def _raw(view: memoryview) -> memoryview:
    return pickle.PickleBuffer(view).raw()


def _find(here: session.Session, view: memoryview) -> tuple[Any, int] | None:
    """The record (a pinned View) that a buffer lies in and where, if naming it is better than a copy."""
    if placed.is_any():
        placed.seal(_address(view), len(view))
    handle = here.store.find(view)
    if handle is None or len(view) * _PASS_ON_SHARE < handle.length:
        return None
    try:
        target = here.store.get(handle)
    except errors.ObjectGone:
        return None  # deleted meanwhile: its bytes stay, for our pin, but nobody else could read it

    if target.tag & record.TAG_MASK != record.TAG:
        return None
    return target, _address(view) - _address(target.data)


def _address(view: memoryview) -> int:
    held = hold(view)
    try:
        return int(held.buf or 0)
    finally:
        _native.py_release_buffer(held)


def _without_the_store(original: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    before, _thread.off = _thread.off, True
    try:
        return original(*arguments, **options)
    finally:
        _thread.off = before


def holding_tokens(function: Callable[..., Any]) -> Callable[..., Any]:
    """`.remote()`, made to keep the tokens of its arguments until Ray counts them itself."""
    thread = _thread

    @functools.wraps(function)
    def submit(*arguments: Any, **options: Any) -> Any:
        held = thread.held
        mark = len(held)
        try:
            return function(*arguments, **options)
        finally:
            if len(held) > mark:
                del held[mark:]

    return submit
