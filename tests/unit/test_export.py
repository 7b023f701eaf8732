"""The buffer protocol of a class written in Python: it works here, and refuses where a layout differs."""

from __future__ import annotations

import ctypes
import gc
import pickle
import sys
import weakref

import pytest

from gismo_core import View, _export


class Exporter:
    """As View: the memory in the second slot."""

    __slots__ = ("__weakref__", "_a", "_b_memory", "_c")

    _b_memory: memoryview

    def __init__(self, data: bytearray | bytes) -> None:
        self._b_memory = memoryview(data).toreadonly()

    def __buffer__(self, flags: int, /) -> memoryview:
        raise AssertionError("only where export_buffer does not apply")


def test_it_applies_to_this_python() -> None:
    assert sys.implementation.name != "cpython" or _export.export_buffer(Exporter, "_b_memory")
    made = Exporter(b"abc")
    for take in (memoryview, bytes, bytearray, pickle.PickleBuffer, lambda x: b"".join([x])):
        assert bytes(take(made)) == b"abc"


def test_the_memory_and_not_the_exporter_is_what_consumers_hold() -> None:
    assert _export.export_buffer(Exporter, "_b_memory")
    data = bytearray(b"abc")
    made = Exporter(data)
    reference = weakref.ref(made)
    held, consumer = made._b_memory, memoryview(made)
    count = sys.getrefcount(made)
    assert consumer.readonly
    assert consumer.obj is held
    del made
    gc.collect()
    assert reference() is None
    assert count <= 3
    with pytest.raises(BufferError):
        data.clear()
    del consumer, held
    data.clear()


def test_no_memory_is_an_error() -> None:
    assert _export.export_buffer(Exporter, "_b_memory")
    empty = object.__new__(Exporter)
    with pytest.raises(ValueError, match="released"):
        memoryview(empty)
    made = Exporter(b"abc")
    made._b_memory.release()
    with pytest.raises(ValueError, match="released"):
        memoryview(made)
    with pytest.raises((TypeError, BufferError)):
        ctypes.c_char.from_buffer(Exporter(b"abc"))


def test_other_layouts_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class First:
        __slots__ = ("a", "b")

    class WithDict:
        b = 1

    assert not _export.export_buffer(First, "a")
    assert not _export.export_buffer(WithDict, "b")
    monkeypatch.setattr(_export, "_function", lambda name: 1)
    assert not _export.export_buffer(First, "b")
    monkeypatch.undo()
    monkeypatch.setattr(sys.implementation, "name", "pypy")
    assert not _export.export_buffer(First, "b")
    monkeypatch.undo()
    with pytest.raises(TypeError):
        memoryview(First())  # type: ignore[arg-type]


def test_view_has_it() -> None:
    view = object.__new__(View)
    view._b_memory = memoryview(b"abc")
    assert bytes(view) == b"abc"
    if sys.version_info >= (3, 12):
        from collections.abc import Buffer

        assert isinstance(view, Buffer)
