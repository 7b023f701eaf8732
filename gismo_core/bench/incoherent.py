"""Rows of a store with ``coherence: software``: what flushes and invalidations cost. On ordinary memory, which is coherent:
the instructions are the same there, their way to the device is shorter."""

from __future__ import annotations

from collections.abc import Iterator

from gismo_core.bench import memory
from gismo_core.bench.clib import Handles, native
from gismo_core.bench.copy import span_bytes, store_bytes
from gismo_core.bench.cycle import small_cycles
from gismo_core.bench.group import MIB, Context, Group
from gismo_core.bench.result import Measurement, Row

CYCLE = Row(
    name="store.cycle.software",
    unit="us",
    better="lower",
    what="create + seal + get + release + delete of 64 B with software coherence, in C",
    judged="value",
    reach=4.0,
    aim=1.5,
)
FIRST_GET = Row(
    name="store.get.first.software",
    unit="GB/s",
    better="higher",
    what="a host's first get of an object of 1 GiB that another host put: it invalidates, and touches no byte",
    judged="value",
    reach=50.0,
    aim=80.0,
)
PUT = Row(
    name="store.put.software.1GiB",
    unit="GB/s",
    better="higher",
    what="put of 1 GiB with software coherence ÷ put with hardware coherence",
    judged="ratio",
    reach=0.9,
    aim=0.97,
)


def run_cycle(context: Context) -> Iterator[Measurement]:
    """As ``store.cycle.native``."""
    yield Measurement(CYCLE.name, small_cycles(context, context.pick(200_000, 2_000), software=True))


def run_first_get(context: Context) -> Iterator[Measurement]:
    """A new object for each sample; the reader has had all of the memory mapped before."""
    library = native()
    length = span_bytes(context.quick)
    samples: list[float] = []
    with (
        context.medium.fresh(lambda spec: library.format(spec, store_bytes(context.quick), software=True)) as spec,
        library.opened(spec, context.state_dir()) as writer,
        library.opened(spec, context.state_dir("reader")) as reader,
        memory.source(length) as src,
    ):
        handles = Handles(1)
        for _ in range(context.samples + 1):
            writer.put_lap(src, length, 1, handles)  # deletes the one before
            samples.append(length / reader.get(handles, 1))
    yield Measurement(FIRST_GET.name, samples[1:])


def run_put(context: Context) -> Iterator[Measurement]:
    """Two stores side by side, by turns."""
    library, medium = native(), context.medium
    length, size = span_bytes(context.quick), store_bytes(context.quick)
    software: list[float] = []
    hardware: list[float] = []
    with (
        medium.fresh(lambda spec: library.format(spec, size, software=True)) as soft_spec,
        medium.fresh(lambda spec: library.format(spec, size), beside="hardware") as hard_spec,
        library.opened(soft_spec, context.state_dir("software")) as soft,
        library.opened(hard_spec, context.state_dir("hardware")) as hard,
        memory.source(length) as src,
    ):
        of_soft, of_hard = Handles(1), Handles(1)
        for sample in range(-2, context.samples):  # pages are mapped only by being written
            for store, handles, samples in ((soft, of_soft, software), (hard, of_hard, hardware)):
                ns = store.put_lap(src, length, 1, handles)
                if sample >= 0:
                    samples.append(length / ns)
    yield Measurement(PUT.name, software, {"hardware coherence": hardware})


GROUPS = (
    Group(CYCLE.name, (CYCLE,), run_cycle, lambda _: 256 * MIB),
    Group(FIRST_GET.name, (FIRST_GET,), run_first_get, lambda quick: store_bytes(quick) + span_bytes(quick)),
    Group(PUT.name, (PUT,), run_put, lambda quick: 2 * store_bytes(quick) + span_bytes(quick)),
)
