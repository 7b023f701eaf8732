"""Act: what one small object costs, in Python and in C, when nobody else works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gismo_core import Store
from gismo_core.bench.clib import MissingLibraryError, native
from gismo_core.demo.stage import Stage, count

_OBJECT_BYTES = 64
_BATCH = (
    100  # a put, a get, a release and a delete of so many objects are timed by turns; short, so that few are disturbed
)
_C_CYCLES = 20_000
_STEPS = ("put", "get", "release", "delete")


def play(stage: Stage, path: Path, state_dir: Path, store: Store) -> None:
    """Medians of as many rounds as the time allows."""
    stage.screen.act(f"One process: put, get, release, delete of {_OBJECT_BYTES} B")
    python = _python(store, stage.plan.cycle_s)
    cycles = count(python.pop("objects"))
    rows = [(f"{step}, from Python", f"{python[step]:.2f} us") for step in _STEPS]
    rows.append((f"together, the median ({cycles} objects)", f"{python['cycle']:.2f} us"))
    stage.conclude("put + get + release + delete of 64 B, Python", f"{python['cycle']:.2f} us")
    in_c: float | None
    try:
        in_c = _in_c(path, state_dir, stage.plan.cycle_s / 2)
    except MissingLibraryError as error:
        in_c = None
        stage.screen.say(f"   not measured in C: {error}")
    else:
        rows.append(("create + seal + get + release + delete, in C", f"{1e3 * in_c:.0f} ns"))
        stage.conclude("create + seal + get + release + delete of 64 B, C", f"{1e3 * in_c:.0f} ns")
    stage.screen.table(("what", ">time"), rows)
    stage.note("cycle", object_bytes=_OBJECT_BYTES, python_us=python, native_us=in_c)
    stage.expect(
        "all of these are gone again", not store.stats().sealed_objects, f"{store.stats().sealed_objects} objects left"
    )


def _python(store: Store, seconds: float) -> dict[str, float]:
    """Step -> us, the medians over the batches; "objects": how many."""
    payload = b"x" * _OBJECT_BYTES
    samples: dict[str, list[float]] = {step: [] for step in (*_STEPS, "cycle")}
    until_s = time.monotonic() + seconds
    batch: list[Any] = [None] * _BATCH
    places = range(_BATCH)

    def put() -> None:
        for place in places:
            batch[place] = store.put(payload)

    def get() -> None:
        for place in places:
            batch[place] = store.get(batch[place])

    def release() -> None:
        for place in places:
            batch[place].release()

    def delete() -> None:
        for handle in handles:
            store.delete(handle)

    while True:
        times = [_time(put)]
        handles: Iterable[Any] = list(batch)
        times += [_time(step) for step in (get, release, delete)]
        for step, found in zip(_STEPS, times, strict=True):
            samples[step].append(found / _BATCH)
        samples["cycle"].append(sum(times) / _BATCH)
        if time.monotonic() > until_s:
            break
    medians = {step: sorted(found)[len(found) // 2] for step, found in samples.items()}
    return medians | {"objects": len(samples["cycle"]) * _BATCH}


def _time(step: Callable[[], None]) -> float:
    begin = time.perf_counter_ns()
    step()
    return (time.perf_counter_ns() - begin) / 1e3


def _in_c(path: Path, state_dir: Path, seconds: float) -> float:
    """us per cycle, the median over the rounds."""
    samples: list[float] = []
    with native().opened(f"file:{path}", state_dir) as store:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s or not samples:
            samples.append(store.cycle(_OBJECT_BYTES, _C_CYCLES) / _C_CYCLES / 1e3)
    return sorted(samples)[len(samples) // 2]
