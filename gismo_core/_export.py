"""The buffer protocol for a class written in Python, on every CPython, without an extension module.

PEP 688 (`__buffer__`) exists from Python 3.12 on only, and there pickle.PickleBuffer(obj) cannot be read: it asks
the helper object behind `__buffer__` for its buffer, which has none. An extension module would have to be built for
each Python of each image that this package is injected into. CPython itself has the function that is needed:
pickle.PickleBuffer is a C type whose bf_getbuffer does nothing but

    return PyObject_GetBuffer(self->view.obj, view, flags);

(Objects/picklebufobject.c, unchanged since 3.8), where `view` is the first field of the instance and `obj` the second
word of it. A class that keeps a memoryview in its second slot has that memoryview at the same place; so the function
is right for its instances as well, and is put into the class's own table. All that is assumed of the layouts is
checked first; where a check fails the class is left as it is.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
from typing import Any

_WORD = 8


def _word(address: int) -> int:
    return ctypes.c_size_t.from_address(address).value


def _function(name: str) -> int:
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


def export_buffer(cls: type, slot: str) -> bool:
    """Make instances of `cls` export what their slot `slot` holds: a memoryview, in the second slot of `cls`.

    True if that was done; False, and nothing changed, if this Python is laid out in another way.
    """
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != _WORD:
        return False
    head: int = object.__basicsize__
    source: Any = pickle.PickleBuffer
    source_table, own_table = _buffer_table(source), _buffer_table(cls)
    if not source_table or not own_table or source_table == own_table or _slot_offset(cls, slot) != head + _WORD:
        return False
    get_buffer = _word(source_table)
    if not get_buffer:
        return False
    ctypes.c_size_t.from_address(own_table).value = get_buffer  # bf_getbuffer is the first of the two functions
    return True


def _buffer_table(cls: type) -> int:
    """The address of tp_as_buffer's table, or 0 if PyTypeObject is not what it was in Python 3.10 to 3.14."""
    head = object.__basicsize__
    start = id(cls) + head + _WORD  # PyObject_VAR_HEAD
    # tp_name, tp_basicsize, tp_itemsize, ... tp_getattro, tp_setattro, tp_as_buffer, tp_flags
    basicsize, getattro, setattro, as_buffer, flags = (start + index * _WORD for index in (1, 15, 16, 17, 18))
    known = (
        ctypes.c_ssize_t.from_address(basicsize).value == cls.__basicsize__
        and _word(getattro) == _function("PyObject_GenericGetAttr")
        and _word(setattro) == _function("PyObject_GenericSetAttr")
        and _word(flags) == cls.__flags__
    )
    return _word(as_buffer) if known else 0


def _slot_offset(cls: type, slot: str) -> int:
    """Where in an instance a slot lies: PyMemberDescrObject.d_member->offset."""
    descriptor = cls.__dict__[slot]
    if type(descriptor).__name__ != "member_descriptor":
        return -1
    member = _word(id(descriptor) + object.__basicsize__ + 3 * _WORD)  # after d_type, d_name, d_qualname
    name = _word(member)  # PyMemberDef: name, type, offset
    if ctypes.string_at(name) != slot.encode():
        return -1
    return ctypes.c_ssize_t.from_address(member + 2 * _WORD).value
