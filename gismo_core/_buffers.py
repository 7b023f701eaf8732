"""Addresses of what callers hand in: any C-contiguous buffer, read-only ones too, without a copy."""

from __future__ import annotations

import ctypes
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from gismo_core import _native
from gismo_core.errors import InvalidArgument

_SIMPLE = 0  # PyBUF_SIMPLE: C-contiguous bytes, not necessarily writable


class Pinned:
    """Buffers held still while the core reads them; `entries` is what gismo_put takes.

    Use as a context manager: the buffers are given back at the end, whatever happens.
    """

    __slots__ = ("_held", "count", "entries", "total_bytes")

    def __init__(self, buffers: Any) -> None:
        parts = _parts(buffers)
        count = len(parts)
        if not 1 <= count <= _native.BUFFERS_MAX:
            raise InvalidArgument(f"an object has 1 to {_native.BUFFERS_MAX} buffers, not {count}; join some of them")
        self._held: list[_native.PyBuffer] = []
        self.count = count
        flat: list[int] = []
        try:
            for part in parts:
                held = hold(part)
                self._held.append(held)
                flat += held.buf or 0, held.len
        except BaseException:
            self.release()
            raise
        self.entries = (ctypes.c_uint64 * (2 * count))(*flat)  # gismo_buffer[count]
        self.total_bytes = sum(flat[1::2])

    def parts(self) -> Iterator[tuple[int, int]]:
        """(address, length) of each."""
        flat = list(self.entries)
        return zip(flat[::2], flat[1::2], strict=True)

    def release(self) -> None:
        held, self._held = self._held, []
        for one in held:
            _native.py_release_buffer(one)

    def __enter__(self) -> Pinned:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def hold(part: Any) -> _native.PyBuffer:
    """The buffer of one bytes-like object, to be given back with py_release_buffer."""
    if type(part) is pickle.PickleBuffer:
        part = part.raw()  # a Fortran-ordered array is contiguous as well, and raw() says so
    held = _native.PyBuffer()
    try:
        _native.py_get_buffer(part, held, _SIMPLE)
    except (TypeError, BufferError, ValueError) as error:
        raise InvalidArgument(
            f"cannot take the bytes of a {type(part).__name__}: {error}. Give C-contiguous bytes-like objects "
            "(encode a str; np.ascontiguousarray for a strided array)"
        ) from error
    return held


def _parts(buffers: Any) -> Sequence[Any]:
    if isinstance(buffers, (list, tuple)):
        return buffers
    return (buffers,)
