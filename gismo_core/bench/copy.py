"""``store.put.*`` against the best memcpy of the same run, and ``store.get.1GiB``: a get touches no bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gismo_core.bench import memory
from gismo_core.bench.clib import COPY_VARIANTS, THREADED_VARIANTS, Handles, native
from gismo_core.bench.group import GIB, KIB, MIB, Context, Group
from gismo_core.bench.result import Measurement, Row

THREADED_FROM = MIB
"""Below it nobody wakes a second thread for a copy."""


def _put_row(size: str, reach: float) -> Row:
    return Row(
        name=f"store.put.{size}",
        unit="GB/s",
        better="higher",
        what=f"put of {size} with its CRC, source and destination rotating over 1 GiB, ÷ the best memcpy",
        judged="ratio",
        reach=reach,
        aim=0.97,
    )


def span_bytes(quick: bool) -> int:
    """Over how much memory copies rotate."""
    return 32 * MIB if quick else GIB


def store_bytes(quick: bool) -> int:
    """Of a store that holds as much in objects."""
    # A quarter more than the objects: what was deleted may come back in batches.
    return span_bytes(quick) * 5 // 4 + 64 * MIB


class Put:
    """One size of ``store.put``."""

    def __init__(self, row: Row, length: int) -> None:
        self.row = row
        self.length = length

    def __call__(self, context: Context) -> Iterator[Measurement]:
        library, medium = native(), context.medium
        span = span_bytes(context.quick)
        length = min(self.length, span)
        slots = span // length
        size = store_bytes(context.quick)
        variants = [v for v in range(len(COPY_VARIANTS)) if length >= THREADED_FROM or v not in THREADED_VARIANTS]
        context.say("warming source, store and reference")
        with (
            medium.fresh(lambda spec: library.format(spec, size)) as spec,
            library.opened(spec, context.state_dir()) as store,
            memory.source(span) as src,
            library.copier() as copier,
        ):
            handles = Handles(slots)
            for _ in range(2):  # pages of the whole store are mapped only by being written
                store.put_lap(src, length, slots, handles)
            huge = memory.huge_bytes(Path(spec.partition(":")[2])) > 0
            context.say(f"the store lies in {'huge' if huge else '4 KiB'} pages, and so does the reference")
            with medium.scratch(span, after_bytes=size, huge=huge) as reference, memory.address_of(reference) as dst:
                puts: list[float] = []
                copies: dict[int, list[float]] = {variant: [] for variant in variants}
                for variant in variants:
                    library.copy_lap(copier, variant, dst, src, length, slots)
                for _ in range(context.samples):
                    # A put before each copy: whichever of the two mappings was used last has its page tables cached.
                    for variant in variants:
                        puts.append(span / store.put_lap(src, length, slots, handles))
                        ns = library.copy_lap(copier, variant, dst, src, length, slots)
                        copies[variant].append(span / ns)
        yield Measurement(self.row.name, puts, {COPY_VARIANTS[v]: samples for v, samples in copies.items()})


GET = Row(
    name="store.get.1GiB",
    unit="ns",
    better="lower",
    what="get of an existing object of 1 GiB, no bytes touched, ÷ the same for 1 MiB",
    judged="ratio",
    reach=1.2,
    aim=1.0,
    quotient=True,
)


def run_get(context: Context) -> Iterator[Measurement]:
    """Gets of one large and one small object of the same store, by turns."""
    library = native()
    large_bytes = span_bytes(context.quick)
    count = context.pick(200_000, 2_000)
    with (
        context.medium.fresh(lambda spec: library.format(spec, store_bytes(context.quick))) as spec,
        library.opened(spec, context.state_dir()) as store,
        memory.source(large_bytes) as src,
    ):
        large, small = store.put(src, large_bytes), store.put(src, MIB)
        store.get(large, count)
        store.get(small, count)
        large_ns: list[float] = []
        small_ns: list[float] = []
        for _ in range(context.samples):
            large_ns.append(store.get(large, count) / count)
            small_ns.append(store.get(small, count) / count)
    yield Measurement(GET.name, large_ns, {"get of 1 MiB": small_ns})


def _put_group(size: str, length: int, reach: float) -> Group:
    row = _put_row(size, reach)
    return Group(row.name, (row,), Put(row, length), lambda quick: store_bytes(quick) + 2 * span_bytes(quick))


GROUPS = (
    _put_group("1GiB", GIB, 0.90),
    _put_group("16MiB", 16 * MIB, 0.90),
    _put_group("1MiB", MIB, 0.90),
    _put_group("64KiB", 64 * KIB, 0.70),
    Group(GET.name, (GET,), run_get, lambda quick: store_bytes(quick) + span_bytes(quick)),
)
