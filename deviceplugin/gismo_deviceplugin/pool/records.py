"""Records in the pool label: a header with a checksum, and JSON. docs/pool-label.md has the table."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

FORMAT = 1  # of a text that says nothing else
NEWEST_FORMAT = 2
_HEADER = struct.Struct("<8sQII8x")
_CHECKED = struct.Struct("<8sQI")


class Memory(Protocol):
    """Bytes that other hosts see. write() ends when they are written back."""

    size_bytes: int

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there, not older than the call where the memory is coherent."""

    def write(self, offset: int, data: bytes) -> None:
        """In order of addresses; cut off anywhere, the first part of it may be there."""


class TooNew(RuntimeError):
    """Written by a newer agent: nothing may be written, and nothing may be guessed."""


@dataclass(frozen=True, slots=True)
class Record:
    """One that was found whole."""

    sequence: int
    text: Mapping[str, Any]


def packed(magic: bytes, sequence: int, text: Mapping[str, Any], room: int) -> bytes:
    """The bytes of a record. ValueError where it does not fit into its place."""
    body = json.dumps(text, separators=(",", ":"), sort_keys=True).encode()
    if _HEADER.size + len(body) > room:
        raise ValueError(f"{_HEADER.size + len(body)} bytes do not fit into {room} of the pool label")
    crc = zlib.crc32(_CHECKED.pack(magic, sequence, len(body)) + body)
    return _HEADER.pack(magic, sequence, len(body), crc) + body


def read(memory: Memory, offset: int, room: int, magic: bytes) -> Record | None:
    """The record there, or None. TooNew where it is of a later format."""
    there, sequence, length, crc = _HEADER.unpack(memory.read(offset, _HEADER.size))
    if there != magic or length > room - _HEADER.size:
        return None
    body = memory.read(offset + _HEADER.size, length)
    if zlib.crc32(_CHECKED.pack(magic, sequence, length) + body) != crc:
        return None
    try:
        text = json.loads(body)
    except ValueError:
        return None
    if not isinstance(text, dict) or not isinstance(text.get("format"), int):
        return None
    if text["format"] > NEWEST_FORMAT:
        raise TooNew(
            f"the pool label has format {text['format']}, and this agent knows {NEWEST_FORMAT}: install the newer version of Gismo again"
        )
    return Record(sequence, text)


def write(memory: Memory, offset: int, room: int, magic: bytes, sequence: int, text: Mapping[str, Any]) -> None:
    """Put a record there."""
    memory.write(offset, packed(magic, sequence, {"format": FORMAT, **text}, room))
