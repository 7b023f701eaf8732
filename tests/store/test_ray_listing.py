"""The records of a store, as the keeper lists them: without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gismo_core import Store
from gismo_core.ray import listing, record
from gismo_core.ray.record import Form, Header, Kind

CLUSTER = b"c" * 28


def put(store: Store, number: int, value: bytes = b"value") -> bytes:
    header = Header(
        Kind.PUT, Form.BYTES, CLUSTER, bytes([number]) * 28, b"t" * 24, b"w" * 28, b"n" * 28, b"jjjj", bytes(16), ""
    )  # fmt: skip
    return store.put([header.pack(), b"", b"", b"", value], tag=record.tag_of(header.job)).raw


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


CUT = """
import os, sys
import gismo_core
from gismo_core.ray import listing, record
from store.test_ray_listing import CLUSTER, put

path, state = sys.argv[1:]
store = gismo_core.open(path, state_dir=state)
kept, lost = (put(store, number, bytes(64 << 10)) for number in range(2))  # each with pages of its own
assert record.handle_of(kept).offset < record.handle_of(lost).offset
os.truncate(path, record.handle_of(lost).offset // 4096 * 4096)
lists = listing.Listing(store, CLUSTER)
for look in range(2):
    records, _ = lists.own()
    assert set(records.raws()) == {kept}, records.raws()
    assert lists.count() == 1
assert listing.read_header(store, lost) is None
print("the others are listed", flush=True)
os._exit(0)
"""


def test_a_record_whose_memory_is_gone_is_left_alone(store_path: str, shm: Path) -> None:
    """It can be neither read nor judged; were it an error, nothing would ever be freed again."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    words = [sys.executable, "-c", CUT, store_path, str(shm / "state")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert done.stdout.split() == ["the", "others", "are", "listed"]
