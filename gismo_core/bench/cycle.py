"""``store.cycle.native``, ``.python`` and ``.1e6``: a small object's life, alone and among a million."""

from __future__ import annotations

import time
from collections.abc import Iterator

from gismo_core.bench.clib import native
from gismo_core.bench.group import MIB, Context, Group
from gismo_core.bench.result import Measurement, Row

OBJECT_BYTES = 64

NATIVE = Row(
    name="store.cycle.native",
    unit="us",
    better="lower",
    what="create + seal + get + release + delete of 64 B, in C",
    judged="value",
    reach=0.4,
    aim=0.15,
)
PYTHON = Row(
    name="store.cycle.python",
    unit="us",
    better="lower",
    what="put + get + drop of the view + delete of 64 B, from Python",
    judged="value",
    reach=5.0,
    aim=2.5,
)
MILLION = Row(
    name="store.cycle.1e6",
    unit="us",
    better="lower",
    what="delete a random one of 10^6 objects of 64 B and make one, in C",
    judged="value",
    reach=1.0,
    aim=0.3,
)


def small_cycles(context: Context, count: int, *, software: bool = False) -> list[float]:
    """Samples of ``count`` cycles in C, us each: one thread, one process, one store."""
    library = native()
    with (
        context.medium.fresh(lambda spec: library.format(spec, 256 * MIB, software=software)) as spec,
        library.opened(spec, context.state_dir()) as store,
    ):
        store.cycle(OBJECT_BYTES, count // 4)
        return [store.cycle(OBJECT_BYTES, count) / count / 1e3 for _ in range(context.samples)]


def run_native(context: Context) -> Iterator[Measurement]:
    """With hardware coherence."""
    yield Measurement(NATIVE.name, small_cycles(context, context.pick(500_000, 2_000)))


def run_python(context: Context) -> Iterator[Measurement]:
    """As a user writes it."""
    import gismo_core

    library = native()
    count = context.pick(50_000, 500)
    payload = b"gismo bench: sixty-four bytes of payload, as short as a line is."
    with context.medium.fresh(lambda spec: library.format(spec, 256 * MIB)) as spec:
        store = gismo_core.open(spec)
        try:

            def cycles(count: int) -> float:
                begin = time.perf_counter_ns()
                for _ in range(count):
                    handle = store.put(payload)
                    view = store.get(handle)
                    del view
                    store.delete(handle)
                return (time.perf_counter_ns() - begin) / count / 1e3

            cycles(count // 4)
            samples = [cycles(count) for _ in range(context.samples)]
        finally:
            store.close()
    yield Measurement(PYTHON.name, samples)


def million_store_bytes(quick: bool) -> int:
    """Room for 10^6 small objects: slots and pin lines are about 140 bytes an object, cells 64 to 128."""
    return 64 * MIB if quick else 1024 * MIB


def run_million(context: Context) -> Iterator[Measurement]:
    """Random deletes, so that chunks and cells are met in no order."""
    library = native()
    live = context.pick(1_000_000, 5_000)
    pairs = context.pick(500_000, 2_000)
    with (
        context.medium.fresh(
            lambda spec: library.format(spec, million_store_bytes(context.quick), live + live // 16)
        ) as spec,
        library.opened(spec, context.state_dir()) as store,
    ):
        context.say(f"making {live} objects")
        handles = store.fill(OBJECT_BYTES, live, named=False)
        store.replace(OBJECT_BYTES, handles, pairs // 2, 1)
        samples = [
            store.replace(OBJECT_BYTES, handles, pairs, 2 + sample) / pairs / 1e3 for sample in range(context.samples)
        ]
    yield Measurement(MILLION.name, samples)


GROUPS = (
    Group(NATIVE.name, (NATIVE,), run_native, lambda _: 256 * MIB),
    Group(PYTHON.name, (PYTHON,), run_python, lambda _: 256 * MIB),
    Group(MILLION.name, (MILLION,), run_million, million_store_bytes),
)
