"""A record: one store object that holds one Ray value. Its bytes, and nothing of Ray.

Buffers of the object, each 64-byte aligned (see docs/ray.md):

    0  head     256 bytes of header, then 48 bytes for each foreign handle
    1  plan     one entry for each out-of-band buffer, or nothing where all of them follow here, as plain bytes
    2  packed   Ray's msgpack bytes
    3  in-band  the pickle (empty where the value is msgpack alone, or plain bytes)
    4… the out-of-band buffers that are not foreign

The tag of the object tells records from other objects without a look at their bytes: 0x4752 ("GR") << 48, and the job.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from typing import NamedTuple

from gismo_core.errors import CorruptStore
from gismo_core.handles import Handle

HEADER = struct.Struct("<8sHBBI28s28s24s28s28s4s16s64s20x")
MAGIC = b"GISMORAY"
VERSION = 1
TOKEN_AT, TOKEN_BYTES = 44, 28  # where in the header the token stands
HANDLE_BYTES = 48
TASK_ID_BYTES = 24  # an ObjectID is the TaskID that made it and four bytes of index
FIXED_BUFFERS = 4  # head, plan, packed, in-band

TAG_MASK = 0xFFFF << 48
TAG = 0x4752 << 48

_COUNT = struct.Struct("<I")  # of foreign handles, in the header
_ENTRY = struct.Struct("<IIQQ8sII")  # source (0 = here, else 1 + foreign index), 0, offset, length, format, ndim, 0
_DIMENSION = struct.Struct("<q")
# Formats that memoryview.cast takes; a consumer of a pickle buffer may look at them, as it may in stock Ray.
_CASTABLE = frozenset("bBhHiIlLqQfd?")


class Kind(enum.IntEnum):
    """Who wrote the value, which decides whose reference keeps it (docs/ray.md, Freeing)."""

    PUT = 1
    ARGUMENT = 2
    RETURN = 3


class Form(enum.IntEnum):
    """What the value is."""

    OBJECT = 0  # msgpack and pickle, as Ray serializes
    BYTES = 1  # top-level bytes: buffer 4 is the value


# A look-up in these takes a third of the time of a call of the enumeration, and headers are read by the thousand.
_KINDS = {int(one): one for one in Kind}
_FORMS = {int(one): one for one in Form}


class Header(NamedTuple):  # as Piece: one is made for each value, in a third of the time of a frozen dataclass
    """What a record says of itself. IDs are Ray's binary ones, of Ray's lengths."""

    kind: Kind
    form: Form
    cluster: bytes  # 28
    token: bytes  # 28, the ObjectID whose references keep the record
    task: bytes  # 24, who produced it
    worker: bytes  # 28
    node: bytes  # 28
    job: bytes  # 4
    actor: bytes  # 16, zero where no actor made it
    name: str  # of the task or actor method; cut at 64 bytes
    foreign: tuple[bytes, ...] = ()  # raw handles of other records that it has buffers in

    def pack(self) -> bytes:
        """The bytes of buffer 0."""
        name = self.name.encode()[:64].decode("utf-8", "ignore").encode()
        return HEADER.pack(
            MAGIC, VERSION, self.kind, self.form, len(self.foreign), self.cluster, self.token, self.task,
            self.worker, self.node, self.job, self.actor, name,
        ) + b"".join(self.foreign)  # fmt: skip

    @classmethod
    def unpack(cls, raw: bytes | memoryview) -> Header:
        """From buffer 0, or from its first 256 bytes alone, which leaves out the foreign handles.

        CorruptStore if it is no header of this version.
        """
        if len(raw) < HEADER.size:
            raise CorruptStore(f"a record of Ray has a header of {HEADER.size} bytes, this one has {len(raw)}")
        magic, version, kind, form, count, cluster, token, task, worker, node, job, actor, name = HEADER.unpack_from(
            raw
        )
        if magic != MAGIC or version != VERSION:
            raise CorruptStore(f"this is no record of Ray of version {VERSION} (its magic is {magic!r}, {version})")
        rest = bytes(raw[HEADER.size :])
        if rest and len(rest) < count * HANDLE_BYTES:
            raise CorruptStore(f"a record of Ray names {count} foreign extents and has room for fewer")
        foreign = (
            tuple(rest[at : at + HANDLE_BYTES] for at in range(0, count * HANDLE_BYTES, HANDLE_BYTES)) if rest else ()
        )
        try:
            return cls(
                _KINDS[kind], _FORMS[form], cluster, token, task, worker, node, job, actor,
                name.rstrip(b"\0").decode("utf-8", "replace"), foreign,
            )  # fmt: skip
        except KeyError as error:
            raise CorruptStore(f"a record of Ray has an unknown kind or form: {error}") from error


def foreign_count(raw: bytes) -> int:
    """How many foreign handles follow a packed header."""
    count: int = _COUNT.unpack_from(raw, 12)[0]
    return count


def tag_of(job: bytes) -> int:
    """The tag of the records of a job (4 bytes)."""
    return TAG | int.from_bytes(job, "little")


class Piece(NamedTuple):
    """Where one out-of-band buffer lies: here (foreign is None: the next buffer of this record), or in another one."""

    foreign: int | None
    offset: int  # of the foreign payload
    length: int
    format: str
    shape: tuple[int, ...]


def shape_of(view: memoryview) -> tuple[str, tuple[int, ...]]:
    """The format and shape to give a reader; plain bytes where memoryview could not give them back."""
    if view.ndim != 1 or view.format != "B":
        text, shape = view.format.lstrip("@"), view.shape
        if shape and 0 not in shape and text in _CASTABLE and view.c_contiguous:
            return text, tuple(shape)
    return "B", (view.nbytes,)


def pack_plan(pieces: Sequence[Piece]) -> bytes:
    """The plan, empty where every buffer is here and plain bytes."""
    if all(piece.foreign is None and piece.format == "B" and len(piece.shape) == 1 for piece in pieces):
        return b""
    packed = []
    for piece in pieces:
        source = 0 if piece.foreign is None else piece.foreign + 1
        packed.append(_ENTRY.pack(source, 0, piece.offset, piece.length, piece.format.encode(), len(piece.shape), 0))
        packed += map(_DIMENSION.pack, piece.shape)
    return b"".join(packed)


def lay_out(plan: memoryview, own: Sequence[memoryview], foreign: Sequence[memoryview]) -> list[memoryview]:
    """The out-of-band buffers in their order, by the plan. CorruptStore where the plan does not fit."""
    if not plan:
        return list(own)
    found: list[memoryview] = []
    at = used = 0
    try:
        while at < len(plan):
            source, _, offset, length, text, ndim, _ = _ENTRY.unpack_from(plan, at)
            at += _ENTRY.size
            shape = struct.unpack_from(f"<{ndim}q", plan, at)
            at += ndim * _DIMENSION.size
            if source == 0:
                buffer = own[used]
                used += 1
            else:
                buffer = foreign[source - 1][offset : offset + length]
            if len(buffer) != length:
                raise CorruptStore("a record of Ray has a buffer of another length than its plan says")
            kind = text.rstrip(b"\0").decode("ascii")
            found.append(buffer if kind == "B" and ndim == 1 else buffer.cast(kind, shape))
    except (struct.error, IndexError, TypeError, ValueError) as error:
        raise CorruptStore(f"the plan of a record of Ray is damaged: {error}") from error
    return found


def handle_of(raw: bytes) -> Handle:
    """The handle of 48 raw bytes."""
    return Handle(raw)
