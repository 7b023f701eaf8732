"""Arrays that are written straight into the store: empty(shape, dtype), and what ray.put makes of them.

The array lies in a record of its own, with a token of its own that lives as long as the array. Putting it seals that
record; the value's record then names it as a foreign extent, as with any buffer that lies in the store already.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gismo_core import errors
from gismo_core.ray import pages, record, session
from gismo_core.ray.record import Form, Kind
from gismo_core.views import Draft

if TYPE_CHECKING:
    import numpy as np

_LEAST_BYTES = 64 * 1024
_SPARE_SHARE = 32  # of an array, at most, may be spent on beginning and ending it with a page of the medium


def empty(shape: int | tuple[int, ...], dtype: Any = float) -> np.ndarray[Any, Any]:
    """A NumPy array to fill and then put or return: `ray.put` of it copies nothing.

    shape, dtype: as of numpy.empty, C order; dtypes of Python objects are refused by NumPy's own rules. Once it was put
    (or passed, or returned) as a whole, it is read-only: everybody sees these bytes. Without a store, without room and
    below 64 KiB (on hugetlbfs and device-DAX, of which only whole pages can be protected: 32 of them) it is a plain
    numpy.empty.
    """
    import numpy as np

    kind = np.dtype(dtype)
    dimensions = (shape,) if isinstance(shape, int) else tuple(shape)
    nbytes = math.prod(dimensions) * kind.itemsize
    here = session.current()
    if here is None or nbytes < _LEAST_BYTES or kind.hasobject:
        return np.empty(dimensions, kind)
    grain = pages.grain(here.store)
    spare = 0 if grain == mmap.PAGESIZE else 2 * grain  # the record begins anywhere, and the array with a page
    if nbytes < spare // 2 * _SPARE_SHARE:
        return np.empty(dimensions, kind)
    token = here.own_token()
    header = session.header(here, Kind.PUT, Form.BYTES, token.binary(), ())
    head = header.pack()
    try:
        draft = here.store.create([len(head), 0, 0, 0, nbytes + spare], tag=record.tag_of(header.job))
    except errors.GismoError as error:
        here.put_back(token, Kind.PUT)
        session.Warnings.once("empty", "gismo_core.ray.empty gives an ordinary array: %s", error)
        return np.empty(dimensions, kind)
    draft.buffer[: len(head)] = head
    start = len(head)
    if spare:
        start += -(np.frombuffer(draft.buffer, np.uint8).ctypes.data + start) % grain
    memory = draft.buffer[start : start + nbytes]
    flat = np.frombuffer(memory, dtype=kind)
    array = flat.reshape(dimensions)
    # NumPy holds a memoryview of its own: what every view of the array keeps alive.
    # A record begins on a page of its own, 256 bytes before the array: what protects one cannot hurt another.
    first = array.ctypes.data if spare else array.ctypes.data - len(head)
    length = -(-(array.ctypes.data + nbytes - first) // grain) * grain
    # A seal reads all of it where it has to flush.
    is_moved = not spare and here.store.info.coherence == "hardware"
    _Placed(draft, token, flat.base, array, lambda: pages.protect(first, length, move=is_moved))
    return array


class _Placed:
    """One such array, from empty() until the last view of it is gone."""

    all: dict[int, _Placed] = {}  # noqa: RUF012 - by address; shared by the process on purpose
    lock = threading.RLock()  # re-entrant: a finalizer may run inside it

    def __init__(
        self, draft: Draft, token: Any, held: Any, array: Any, protect: Callable[[], pages.Protection | None]
    ) -> None:
        self.draft: Draft | None = draft
        self.token = token
        self.nbytes = int(array.nbytes)
        self.address = int(array.ctypes.data)
        self.array = weakref.ref(array)
        self.protection: pages.Protection | None = None
        self.protect = protect
        self.pid = os.getpid()
        with self.lock:
            _Placed.all[self.address] = self
        weakref.finalize(held, _Placed.drop, self.address)

    @classmethod
    def drop(cls, address: int) -> None:
        """The last view is gone."""
        with cls.lock:
            one = cls.all.pop(address, None)
        if one is None or one.pid != os.getpid():
            return
        if one.draft is not None:
            try:
                one.draft.abort()
            except errors.StoreClosed:
                return  # the store aborted it when it was closed
        elif one.protection is not None:
            one.protection.end()

    def seal(self) -> None:
        """Make its bytes everybody's, and unchangeable here."""
        draft, self.draft = self.draft, None
        if draft is None:
            return
        array = self.array()
        if array is not None:
            array.flags.writeable = False
        self.protection = self.protect()
        draft.seal()


def seal(address: int, nbytes: int) -> None:
    """If exactly this array was made by empty() and not put yet, seal it now."""
    if not _Placed.all:
        return
    with _Placed.lock:
        one = _Placed.all.get(address)
        if one is not None and one.nbytes == nbytes and one.pid == os.getpid():
            one.seal()


def is_any() -> bool:
    """Is there such an array at all?"""
    return bool(_Placed.all)
