"""``store.lookup.name``: by name among a million."""

from __future__ import annotations

from collections.abc import Iterator

from gismo_core.bench.clib import native
from gismo_core.bench.cycle import OBJECT_BYTES, million_store_bytes
from gismo_core.bench.group import Context, Group
from gismo_core.bench.result import Measurement, Row

LOOKUP = Row(
    name="store.lookup.name",
    unit="us",
    better="lower",
    what="look-up of a random one of 10^6 names, in C",
    judged="value",
    reach=3.0,
    aim=1.0,
)


def run(context: Context) -> Iterator[Measurement]:
    """Random names of 27 bytes, of 10^6 objects of one lane."""
    library = native()
    live = context.pick(1_000_000, 5_000)
    lookups = context.pick(200_000, 2_000)
    with (
        context.medium.fresh(
            lambda spec: library.format(spec, million_store_bytes(context.quick), live + live // 16)
        ) as spec,
        library.opened(spec, context.state_dir()) as store,
    ):
        context.say(f"making {live} named objects")
        store.fill(OBJECT_BYTES, live, named=True)
        store.lookup(live, lookups, 1)
        samples = [store.lookup(live, lookups, 2 + sample) / lookups / 1e3 for sample in range(context.samples)]
    yield Measurement(LOOKUP.name, samples)


GROUPS = (Group(LOOKUP.name, (LOOKUP,), run, million_store_bytes),)
