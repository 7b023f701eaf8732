"""Work that is larger than the pool: right results, Ray's own store takes the rest, and room that is free is used again."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import ray_pool

pytestmark = pytest.mark.timeout(420)

POOL = 128 << 20

# What both programs tell at their end: how the pool was used, and what went past it.
WATCH = """
import gc, re, threading, time, urllib.request
from gismo_core.ray import record, session

def store():
    return session.open_store()

def records():
    return len(store().sealed(tag=record.TAG, mask=record.TAG_MASK))

class Peak(threading.Thread):
    bytes = 0
    def run(self):
        while True:
            self.bytes = max(self.bytes, store().stats().used_bytes)
            time.sleep(0.02)

def fallbacks(wanted):
    # The counter comes to Ray's endpoint some seconds after the event.
    port, found, end = ray.nodes()[0]["MetricsExportPort"], 0, time.monotonic() + 60
    while found < wanted and time.monotonic() < end:
        time.sleep(0.5)
        try:
            text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        except OSError:
            continue
        found = sum(float(n) for n in re.findall(r'^ray_gismo_fallbacks_total\\{.*reason="full".*\\} (\\S+)', text, re.M))
    return found

def spilled():
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address
    address = ray.get_runtime_context().gcs_address
    return get_memory_info_reply(get_state_from_address(address)).store_stats.spilled_bytes_total

def emptied(timeout_s=90):
    end = time.monotonic() + timeout_s
    while records() and time.monotonic() < end:
        gc.collect()
        time.sleep(0.1)
    return records()

settled_once = settled()
peak = Peak(daemon=True)
peak.start()
"""

DATA = """
import ray.data

ROW = 8 << 20

def grow(batch):
    ids = batch["id"]
    return {"id": ids, "x": np.stack([np.full(ROW, i % 251, np.uint8) for i in ids])}

def blocks(rows):
    return ray.data.range(rows, override_num_blocks=rows).map_batches(grow, batch_size=None).materialize()

def right(dataset):
    seen = []
    for batch in dataset.iter_batches(batch_size=1, prefetch_batches=0):
        seen += [int(i) for i, x in zip(batch["id"], batch["x"]) if len(x) == ROW and (x == i % 251).all()]
    return sorted(seen)

ray.data.DataContext.get_current().enable_progress_bars = False
large = blocks(32)
told = {"rows": right(large), "peak": peak.bytes, "fallbacks": fallbacks(1)}
del large
told["left"] = emptied()
small = blocks(4)
told |= {"again": right(small), "used_again": records()}
print(json.dumps(told))
"""

SHUFFLE = """
N, PART = 8, 5 << 20

def value(i, j):
    return (i * N + j) % 251

@ray.remote(num_cpus=1)
def split(i):
    parts = [np.full(PART, value(i, j), np.uint8) for j in range(N)]
    return *parts, i

@ray.remote(num_cpus=1)
def join(j, *parts):
    return np.concatenate(parts)

@ray.remote(num_cpus=1)
def wrong(j, whole):
    expected = np.repeat(np.array([value(i, j) for i in range(N)], np.uint8), PART)
    return 0 if np.array_equal(whole, expected) else 1 + int((whole != expected).sum())

parts = [split.options(num_returns=N + 1).remote(i) for i in range(N)]
ray.get([each[N] for each in parts])  # all of them exist at once
in_pool, spilled_bytes = records(), spilled()
wholes = [join.remote(j, *(each[j] for each in parts)) for j in range(N)]
told = {
    "wrong": ray.get([wrong.remote(j, whole) for j, whole in enumerate(wholes)]),
    "in_pool": in_pool, "peak": peak.bytes, "spilled": spilled_bytes,
}
del parts, wholes
told["left"] = emptied()
ref = ray.put(np.full(PART, 3, np.uint8))
told["used_again"] = in_store(ray.get(ref))
print(json.dumps(told))
"""


@pytest.fixture
def small() -> Iterator[ray_pool.Pool]:
    """A pool that the work here does not fit into."""
    with ray_pool.pool_in(size=POOL) as made:
        yield made


def full_warnings(ran: ray_pool.Ran) -> Counter[str]:
    """How often each process said that the pool is full; Ray puts "(name pid=…)" before the lines of its workers."""
    lines = [line for line in (ran.out + ran.err).splitlines() if "Gismo: the pool is full" in line]
    return Counter(found[1] if (found := re.search(r"\bpid=(\d+)", line)) else "driver" for line in lines)


def run(pool: ray_pool.Pool, folder: Path, program: str) -> tuple[dict[str, object], ray_pool.Ran]:
    """What the program told, and how it ended."""
    whole = ray_pool.PRELUDE + ray_pool.ROUND + "start()\n" + WATCH + program
    ran = ray_pool.run(whole, pool.environment(), folder, timeout_s=300)
    assert ran.code == 0, ran.err[-5000:]
    told: dict[str, object] = json.loads(ran.out.strip().splitlines()[-1])
    return told, ran


def test_a_dataset_that_is_larger_than_the_pool(small: ray_pool.Pool, folder: Path) -> None:
    told, ran = run(small, folder, DATA)
    assert told["rows"] == list(range(32)), told  # 256 MiB, twice the pool
    assert isinstance(told["peak"], int)
    assert told["peak"] > POOL // 2, told
    assert isinstance(told["fallbacks"], float)
    assert told["fallbacks"] >= 1, told
    warned = full_warnings(ran)
    assert warned, ran.err[-5000:]
    assert set(warned.values()) == {1}, warned  # once a process, however many of its blocks did not fit
    assert told["left"] == 0, told
    assert told["again"] == list(range(4)), told
    assert told["used_again"] == 4, told


def test_a_shuffle_that_is_larger_than_both_stores(small: ray_pool.Pool, folder: Path) -> None:
    told, ran = run(small, folder, SHUFFLE)
    assert told["wrong"] == [0] * 8, told  # 320 MiB on each side; pool and plasma together hold 228 MiB
    assert isinstance(told["in_pool"], int)
    assert told["in_pool"] >= 10, told
    assert isinstance(told["spilled"], int)
    assert told["spilled"] > 0, told
    assert full_warnings(ran), ran.err[-5000:]
    assert told["left"] == 0, told
    assert told["used_again"] is True, told
