"""Handle: what names one object for ever.

The 48 bytes are gismo_handle of gismo.h, little-endian: store UUID (16), generation, offset, length (8 each),
slot, lane (4 each). As text: `gismo1-`, then base32 of those 48 bytes and their CRC-32, lower case, unpadded, so
that a mistyped token is told from a stale one.
"""

from __future__ import annotations

import base64
import binascii
import struct
import uuid
import zlib
from collections.abc import Callable
from typing import Any

from gismo_core.errors import InvalidArgument

_LAYOUT = struct.Struct("<16sQQQII")
_PREFIX = "gismo1-"
_TOKEN_CHARS = 84  # base32 of 52 bytes without padding


class Handle:
    """Names one sealed object. Hashable, picklable, printable; `raw` is its 48 bytes, and cannot be set.

    A handle is a name, not a reference: it keeps nothing alive. A stale one gives ObjectGone.
    """

    __slots__ = ("raw",)  # by hand: a frozen dataclass takes a millisecond to make, at the start of every process
    raw: bytes

    def __init__(self, raw: bytes) -> None:
        if type(raw) is not bytes or len(raw) != _LAYOUT.size:
            raise InvalidArgument(f"a handle is {_LAYOUT.size} bytes as to_bytes() gave them, not {raw!r}")
        _set_raw(self, raw)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Handle does not change: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Handle does not change: cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, Handle) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)

    @property
    def store_uuid(self) -> uuid.UUID:
        """The store that the object lives in."""
        return uuid.UUID(bytes=self.raw[:16])

    @property
    def generation(self) -> int:
        """Of the slot: counts its reuses, 56 bits."""
        return int.from_bytes(self.raw[16:24], "little")

    @property
    def offset(self) -> int:
        """Of the payload, bytes from the start of the medium."""
        return int.from_bytes(self.raw[24:32], "little")

    @property
    def length(self) -> int:
        """Payload bytes."""
        return int.from_bytes(self.raw[32:40], "little")

    @property
    def slot(self) -> int:
        """Index of the object's record."""
        return int.from_bytes(self.raw[40:44], "little")

    @property
    def lane(self) -> int:
        """Host id of the creator."""
        return int.from_bytes(self.raw[44:48], "little")

    def to_bytes(self) -> bytes:
        """The 48 bytes of gismo_handle, the same on every host."""
        return self.raw

    @classmethod
    def from_bytes(cls, raw: bytes | bytearray | memoryview) -> Handle:
        """The inverse of to_bytes; InvalidArgument if it is not 48 bytes."""
        try:
            return cls(bytes(memoryview(raw)))
        except TypeError as error:
            raise InvalidArgument(f"a handle is {_LAYOUT.size} bytes as to_bytes() gave them, not {raw!r}") from error

    @classmethod
    def from_fields(
        cls, store_uuid: uuid.UUID, generation: int, offset: int, length: int, slot: int, lane: int
    ) -> Handle:
        """A handle from its fields. The store checks each against the object before it believes it."""
        try:
            return cls(_LAYOUT.pack(store_uuid.bytes, generation, offset, length, slot, lane))
        except struct.error as error:
            raise InvalidArgument(f"a handle field is out of range: {error}") from error

    def __str__(self) -> str:
        check = zlib.crc32(self.raw).to_bytes(4, "little")
        return _PREFIX + base64.b32encode(self.raw + check).decode("ascii").rstrip("=").lower()

    @classmethod
    def parse(cls, text: str) -> Handle:
        """The inverse of str(handle); upper case and surrounding blanks are forgiven, typing errors are caught."""
        if not isinstance(text, str):
            raise InvalidArgument(f"a handle is parsed from its text, not from {text!r}; from_bytes() takes bytes")
        token = text.strip().lower()
        if not token.startswith(_PREFIX):
            raise InvalidArgument(f"{text!r} is no handle: one begins with {_PREFIX!r}, as `gismo put` printed it")
        body = token[len(_PREFIX) :]
        if len(body) != _TOKEN_CHARS:
            raise InvalidArgument(
                f"the handle has {len(body)} characters after {_PREFIX!r} instead of {_TOKEN_CHARS}: copy all of it"
            )
        try:
            packed = base64.b32decode(body.upper() + "====")
        except (binascii.Error, ValueError) as error:
            raise InvalidArgument(f"the handle has a character that is not base32: {error}; copy it again") from error
        raw, check = packed[: _LAYOUT.size], packed[_LAYOUT.size :]
        if zlib.crc32(raw).to_bytes(4, "little") != check:
            raise InvalidArgument("the handle fails its checksum, so it was mistyped or cut: copy it again")
        return cls(raw)

    def __repr__(self) -> str:
        return (
            f"Handle(store={self.store_uuid}, lane={self.lane}, slot={self.slot}, generation={self.generation}, "
            f"offset={self.offset}, length={self.length})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (Handle, (self.raw,))


_new: Callable[[type[Handle]], Handle] = object.__new__
_set_raw = Handle.__dict__["raw"].__set__


# The first 48 bytes of any buffer, such as a gismo_object: a third faster than bytes(buffer)[:48].
first_48: Callable[[Any], tuple[bytes]] = struct.Struct("48s").unpack_from


def unchecked(raw: bytes) -> Handle:
    """A handle of 48 bytes that the core wrote: skips the check, which is a third of the cost."""
    handle = _new(Handle)
    _set_raw(handle, raw)
    return handle
