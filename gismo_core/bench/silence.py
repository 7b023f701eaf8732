"""``store.fence`` and ``store.release``: a host of many objects fell silent, and is taken out of the store."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from gismo_core.bench.clib import native
from gismo_core.bench.group import GIB, KIB, MIB, Context, Group
from gismo_core.bench.result import Measurement, Row
from gismo_core.bench.worker import WorkerError, workers

FENCE = Row(
    name="store.fence",
    unit="ms",
    better="lower",
    what="a host with 10^5 half-written objects in a store of 64 GiB (sparse) is stopped and found silent: until it is fenced",
    judged="value",
    reach=200.0,
    aim=50.0,
)
RELEASE = Row(
    name="store.release",
    unit="ms",
    better="lower",
    what="the word is given that it is off: until all that it held is free and used again",
    judged="value",
    reach=500.0,
    aim=100.0,
)

SMALL_BYTES = 64
LARGE_BYTES = 4 * KIB
PATIENCE_S = 60.0


def _store_bytes(quick: bool) -> int:
    return 256 * MIB if quick else 64 * GIB


def _needs_bytes(quick: bool) -> int:
    return 256 * MIB if quick else GIB


def run(context: Context) -> Iterator[Measurement]:
    """One process is the host that falls silent; this one looks, and calls as `gismo evict` does, without its pauses.

    The ten seconds of silence that are waited for before are not in the figure (``force``).
    """
    import gismo_core
    from gismo_core.records import HostState

    library = native()
    objects = context.pick(100_000, 500)
    fenced: list[float] = []
    released: list[float] = []
    with (
        context.medium.fresh(
            lambda spec: library.format(spec, _store_bytes(context.quick), 4 * objects, populate=False)
        ) as spec,
        gismo_core.open(spec) as store,
    ):
        for sample in range(context.samples):
            context.say(f"{sample + 1} of {context.samples}: another host begins {objects} objects, and stops")
            with workers("hold", spec, [context.state_dir("silent")], SMALL_BYTES, LARGE_BYTES, objects) as [victim]:
                [host] = [h.host_id for h in store.hosts() if h.state is HostState.ACTIVE and not h.is_self]
                os.kill(victim.process.pid, signal.SIGSTOP)
                fenced.append(_until(store, host, HostState.FENCED))
                victim.kill()
            released.append(_until(store, host, HostState.QUIET))
            if store.stats().writing_objects:
                raise WorkerError(f"{store.stats().writing_objects} objects of the released host are still there")
    yield Measurement(FENCE.name, fenced)
    yield Measurement(RELEASE.name, released)


def _until(store: object, host: int, wanted: object) -> float:
    """Calls until the host stands there; ms."""
    from gismo_core import Store
    from gismo_core.errors import StoreBusy
    from gismo_core.records import Eviction, HostState

    assert isinstance(store, Store)
    stands: list[HostState] = []

    def note(eviction: Eviction) -> None:
        stands.append(eviction.state)

    begin = time.perf_counter()
    while time.perf_counter() < begin + PATIENCE_S:
        try:
            store.evict_host(host, wanted is HostState.QUIET, force=True, progress=note)
        except StoreBusy:
            pass
        if stands[-1] is wanted:
            return (time.perf_counter() - begin) * 1e3
    raise WorkerError(f"host {host} is {stands[-1].name} after {PATIENCE_S:.0f} s, not {wanted}")


GROUPS = (Group(FENCE.name, (FENCE, RELEASE), run, _needs_bytes, store_bytes=_store_bytes),)
