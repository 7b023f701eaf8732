"""Handle: 48 bytes and a token, there and back."""

from __future__ import annotations

import copy
import pickle
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gismo_core import Handle, InvalidArgument
from gismo_core.handles import unchecked

handles = st.binary(min_size=48, max_size=48).map(Handle)


@given(handles)
def test_every_way_there_and_back(handle: Handle) -> None:
    assert Handle.parse(str(handle)) == handle
    assert Handle.parse(f"  {str(handle).upper()}\n") == handle
    assert Handle.from_bytes(handle.to_bytes()) == handle
    assert pickle.loads(pickle.dumps(handle)) == handle
    assert copy.deepcopy(handle) == handle
    assert unchecked(handle.raw) == handle
    assert hash(unchecked(handle.raw)) == hash(handle)
    fields = (handle.store_uuid, handle.generation, handle.offset, handle.length, handle.slot, handle.lane)
    assert Handle.from_fields(*fields) == handle


@given(handles, st.data())
def test_one_wrong_character_is_caught(handle: Handle, data: st.DataObject) -> None:
    token = str(handle)
    place = data.draw(st.integers(7, len(token) - 1))
    other = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567").filter(lambda c: c != token[place]))
    mistyped = token[:place] + other + token[place + 1 :]
    try:
        parsed = Handle.parse(mistyped)
    except InvalidArgument:
        return
    # The last character carries one bit of padding or more, which base32 does not keep.
    assert place == len(token) - 1
    assert parsed == handle


@given(st.text())
def test_any_text_parses_or_is_refused(text: str) -> None:
    for one in (text, "gismo1-" + text, "gismo1-" + text[:84].ljust(84, "a")):
        try:
            handle = Handle.parse(one)
        except InvalidArgument:
            continue
        assert str(handle) == one.strip().lower()


@pytest.mark.parametrize("value", [5, None, "x", ["x"]])
def test_what_is_no_handle(value: object) -> None:
    with pytest.raises(InvalidArgument):
        Handle.from_bytes(value)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        Handle.parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("raw", [b"", b"x" * 47, b"x" * 49, bytearray(48), "x" * 48, None])
def test_only_48_bytes_make_a_handle(raw: object) -> None:
    with pytest.raises(InvalidArgument):
        Handle(raw)  # type: ignore[arg-type]


def test_fields_out_of_range() -> None:
    with pytest.raises(InvalidArgument):
        Handle.from_fields(uuid.uuid4(), -1, 0, 0, 0, 0)
    with pytest.raises(InvalidArgument):
        Handle.from_fields(uuid.uuid4(), 0, 0, 0, 2**32, 0)


def test_a_handle_is_frozen() -> None:
    handle = Handle(bytes(48))
    with pytest.raises(AttributeError):
        handle.raw = bytes(48)
    with pytest.raises(AttributeError):
        del handle.raw
    assert not hasattr(handle, "__dict__")
