"""``store.open`` and ``.cold``: a process opens a store of 64 GiB with 10^6 objects."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from gismo_core.bench.clib import native
from gismo_core.bench.cycle import OBJECT_BYTES, million_store_bytes
from gismo_core.bench.group import GIB, MIB, Context, Group
from gismo_core.bench.result import Measurement, Row
from gismo_core.bench.worker import Worker, workers

WARM = Row(
    name="store.open",
    unit="ms",
    better="lower",
    what="open of a 64 GiB (sparse) store with 10^6 objects that another process of the host has open",
    judged="value",
    reach=5.0,
    aim=0.5,
)
COLD = Row(
    name="store.open.cold",
    unit="ms",
    better="lower",
    what="the same, nobody has it open and the state directory is lost",
    judged="value",
    reach=200.0,
    aim=50.0,
)


def _store_bytes(quick: bool) -> int:
    return 256 * MIB if quick else 64 * GIB


def run(context: Context) -> Iterator[Measurement]:
    """Each sample is a process of its own: its first open of any store."""
    library = native()
    live = context.pick(1_000_000, 5_000)
    state_dir = context.state_dir()
    warm: list[float] = []
    cold: list[float] = []

    def open_once(spec: str) -> float:
        worker = Worker("open", spec, state_dir)
        try:
            [ns] = worker.hear()
            worker.finish()
        finally:
            worker.kill()
        return ns / 1e6

    with context.medium.fresh(
        lambda spec: library.format(spec, _store_bytes(context.quick), live + live // 16, populate=False)
    ) as spec:
        context.say(f"making {live} objects")
        with workers("fill", spec, [state_dir], OBJECT_BYTES, live):
            if WARM.name in context.wanted:
                warm.extend(open_once(spec) for _ in range(context.samples))
        if COLD.name in context.wanted:
            for _ in range(context.samples):
                shutil.rmtree(state_dir)
                state_dir.mkdir()
                cold.append(open_once(spec))
    if warm:
        yield Measurement(WARM.name, warm)
    if cold:
        yield Measurement(COLD.name, cold)


GROUPS = (Group(WARM.name, (WARM, COLD), run, million_store_bytes, store_bytes=_store_bytes),)
