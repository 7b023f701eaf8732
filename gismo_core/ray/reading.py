"""Reading: what a descriptor unpickles to. The bytes are mapped and pinned, never copied.

`load` is named in every descriptor, so its name and arguments are part of what processes of different versions share.
"""

from __future__ import annotations

import importlib
import pickle
from typing import Any

from gismo_core import errors
from gismo_core.ray import record, session
from gismo_core.ray.record import Form


class RecordLost(Exception):
    """The record of a descriptor is gone; Ray's own ObjectLostError takes its place, see patches.py."""


def load(raw_handle: bytes, token: Any) -> Any:
    """The value of a record. The token stays with every buffer of the value; None: the object that is being read is it."""
    if token is None:
        token = _outer_reference()
    store = session.open_store()
    if store is None:
        return importlib.import_module("gismo_core.ray.without").mark(raw_handle, token)
    hold = session.ReadHold(token, raw_handle)
    try:
        view = store.get(record.handle_of(raw_handle), keep=hold)
        buffers = view.buffers
        head = record.Header.unpack(buffers[0])
        foreign = [store.get(record.handle_of(raw), keep=hold).data for raw in head.foreign]
    except errors.ObjectGone as error:
        raise RecordLost(str(error)) from error
    if len(buffers) < record.FIXED_BUFFERS:
        raise errors.CorruptStore("a record of Ray has too few buffers; run `gismo fsck --verify`")
    _, plan, packed, in_band, *own = buffers
    return assemble(head.form, packed, in_band, record.lay_out(plan, own, foreign))


def assemble(form: Form, packed: Any, in_band: Any, buffers: list[memoryview]) -> Any:
    """The value that the buffers of a record make."""
    if form is Form.BYTES:
        return bytes(buffers[0])
    objects = pickle.loads(in_band, buffers=buffers) if in_band else []
    serializer: Any = importlib.import_module("ray._raylet").MessagePackSerializer
    return serializer.loads(packed, objects.__getitem__)


def _outer_reference() -> Any:
    """The ObjectRef that is being deserialized, which ray.put made."""
    worker: Any = importlib.import_module("ray._private.worker").global_worker
    reference = worker.get_serialization_context().get_outer_object_ref()
    if reference is None or reference.is_nil():
        raise RuntimeError(
            "the value of a ray.put lies in a Gismo store, and is being read without its ObjectRef, which is what keeps it "
            "there: read it with ray.get, or pass the ObjectRef to a task"
        )
    return reference
