"""``store.recover`` and ``.first``: a process with 10^4 half-written objects was killed."""

from __future__ import annotations

from collections.abc import Iterator

from gismo_core.bench.clib import native
from gismo_core.bench.group import KIB, MIB, Context, Group
from gismo_core.bench.result import Measurement, Row
from gismo_core.bench.worker import WorkerError, workers

RECOVER = Row(
    name="store.recover",
    unit="ms",
    better="lower",
    what="a process with 10^4 half-written objects was killed: from its death until all of them are free",
    judged="value",
    reach=50.0,
    aim=5.0,
)
FIRST = Row(
    name="store.recover.first",
    unit="ms",
    better="lower",
    what="the first operation (create + abort) of a survivor after that",
    judged="value",
    reach=0.5,
    aim=0.2,
)

SMALL_BYTES = 64
LARGE_BYTES = 64 * KIB


def _store_bytes(quick: bool) -> int:
    return (64 if quick else 640) * MIB


def run(context: Context) -> Iterator[Measurement]:
    """Half of the objects are cells of a chunk, half have pages of their own. Dead = waitpid has returned."""
    library = native()
    objects = context.pick(10_000, 200)
    all_free: list[float] = []
    first: list[float] = []
    with (
        context.medium.fresh(lambda spec: library.format(spec, _store_bytes(context.quick))) as spec,
        library.opened(spec, context.state_dir()) as store,
    ):
        store.touch()
        for _ in range(context.samples):
            with workers("hold", spec, [context.state_dir()], SMALL_BYTES, LARGE_BYTES, objects) as [victim]:
                held = store.writing()
                if held != objects:
                    raise WorkerError(f"{held} objects are half-written, not the {objects} that were begun")
                victim.kill()
                died = library.now()
                first.append(store.touch() / 1e6)
                all_free.append(store.wait_free(died, 60_000_000_000) / 1e6)
    yield Measurement(RECOVER.name, all_free)
    yield Measurement(FIRST.name, first)


GROUPS = (Group(RECOVER.name, (RECOVER, FIRST), run, _store_bytes),)
