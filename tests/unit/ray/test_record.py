"""The bytes of a record, without Ray and without a store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gismo_core.errors import CorruptStore
from gismo_core.ray import record
from gismo_core.ray.record import Form, Header, Kind, Piece

HEADER = Header(
    Kind.RETURN, Form.OBJECT, b"c" * 28, b"k" * 28, b"t" * 24, b"w" * 28, b"n" * 28, b"jjjj", b"a" * 16, "work"
)


def exactly(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


headers = st.builds(
    Header,
    kind=st.sampled_from(Kind),
    form=st.sampled_from(Form),
    cluster=exactly(28),
    token=exactly(28),
    task=exactly(24),
    worker=exactly(28),
    node=exactly(28),
    job=exactly(4),
    actor=exactly(16),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=16),
    foreign=st.lists(exactly(48), max_size=5).map(tuple),
)


@given(headers)
def test_a_header_comes_back(header: Header) -> None:
    packed = header.pack()
    assert len(packed) == 256 + 48 * len(header.foreign)
    assert Header.unpack(packed) == header
    assert record.foreign_count(packed) == len(header.foreign)
    assert Header.unpack(packed[:256]) == header._replace(foreign=())


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_long_name_is_cut_between_characters(name: str) -> None:
    got = Header.unpack(HEADER._replace(name=name).pack()).name
    assert name.startswith(got)
    assert len(got.encode()) <= 64
    assert len(got.encode()) > 60 or got == name


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:255],
        lambda raw: b"x" + raw[1:],
        lambda raw: raw[:8] + b"\xff\xff" + raw[10:],
        lambda raw: raw[:10] + b"\xff" + raw[11:],
        lambda raw: raw[:11] + b"\xff" + raw[12:],
        lambda raw: raw[:-1],
    ],
    ids=["short", "magic", "version", "kind", "form", "foreign cut off"],
)
def test_a_damaged_header_is_refused(damage: Any) -> None:
    whole = HEADER._replace(foreign=(b"f" * 48,)).pack()
    with pytest.raises(CorruptStore):
        Header.unpack(damage(whole))


@given(st.binary(max_size=400))
def test_any_bytes_are_a_header_or_refused(raw: bytes) -> None:
    for candidate in (raw, record.MAGIC + b"\1\0" + raw):
        try:
            Header.unpack(candidate)
        except CorruptStore:
            pass


def test_tags_tell_records_and_jobs() -> None:
    tag = record.tag_of(b"\x01\x02\x03\x04")
    assert tag & record.TAG_MASK == record.TAG
    assert tag & 0xFFFFFFFF == 0x04030201


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["B", "d", "q", "f", "?"]),
            st.lists(st.integers(1, 5), min_size=1, max_size=3),
            st.booleans(),  # in another record
            st.integers(0, 100),
        ),
        max_size=6,
    )
)
def test_a_plan_lays_out_what_was_packed(shapes: list[tuple[str, list[int], bool, int]]) -> None:
    pieces: list[Piece] = []
    own: list[memoryview] = []
    foreign: list[memoryview] = []
    wanted: list[tuple[str, tuple[int, ...], bytes]] = []
    for text, shape, elsewhere, offset in shapes:
        array = np.arange(np.prod(shape)).astype(np.dtype(text)).reshape(shape)
        raw = array.tobytes()
        if elsewhere:
            pieces.append(Piece(len(foreign), offset, len(raw), text, tuple(shape)))
            foreign.append(memoryview(b"x" * offset + raw + b"yy"))
        else:
            pieces.append(Piece(None, 0, len(raw), text, tuple(shape)))
            own.append(memoryview(raw))
        wanted.append((text, tuple(shape), raw))
    plan = record.pack_plan(pieces)
    got = record.lay_out(memoryview(plan), own, foreign)
    assert [bytes(view.cast("B")) if view.nbytes else b"" for view in got] == [raw for _, _, raw in wanted]
    assert [(view.format, view.shape) for view in got] == [(text, shape) for text, shape, _ in wanted]


def test_plain_bytes_that_lie_here_need_no_plan() -> None:
    assert record.pack_plan([Piece(None, 0, 5, "B", (5,))] * 3) == b""


@given(st.binary(min_size=1, max_size=300))
def test_a_damaged_plan_is_refused_or_gives_views_of_what_is_there(raw: bytes) -> None:
    here = [memoryview(bytes(16)) for _ in range(3)]
    try:
        views = record.lay_out(memoryview(raw), here, here)
    except CorruptStore:
        return
    assert all(view.nbytes <= 16 for view in views)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.zeros((3, 4)), ("d", (3, 4))),
        (np.zeros((3, 4), order="F"), ("B", (96,))),
        (np.zeros((3, 0)), ("B", (0,))),
        (np.zeros(3, dtype="c8"), ("B", (24,))),
        (b"12345", ("B", (5,))),
    ],
    ids=["C", "Fortran", "empty", "complex", "bytes"],
)
def test_shapes_are_kept_where_a_memoryview_can_have_them(value: Any, expected: tuple[str, tuple[int, ...]]) -> None:
    assert record.shape_of(memoryview(value)) == expected
