"""The records of a store, as the keeper lists them: without Ray."""

from __future__ import annotations

from typing import Any

import pytest

from gismo_core import Store
from gismo_core.ray import listing, record
from gismo_core.ray.record import Form, Header, Kind

CLUSTER = b"c" * 28


def put(store: Store, number: int) -> bytes:
    header = Header(
        Kind.PUT, Form.BYTES, CLUSTER, bytes([number]) * 28, b"t" * 24, b"w" * 28, b"n" * 28, b"jjjj", bytes(16), ""
    )  # fmt: skip
    return store.put([header.pack(), b"", b"", b"", b"value"], tag=record.tag_of(header.job)).raw


def test_a_look_that_failed_half_way_loses_no_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {put(store, number) for number in range(5)}
    whole, calls = listing.header_of, 0

    def third_fails(*arguments: Any) -> Header | None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise MemoryError
        return whole(*arguments)

    monkeypatch.setattr(listing, "header_of", third_fails)
    lists = listing.Listing(store, CLUSTER)
    with pytest.raises(MemoryError):
        lists.own()
    records, _ = lists.own()
    assert set(records.raws()) == kept
    assert calls == 6  # and none is read twice
