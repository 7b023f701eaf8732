"""``ray.free.lag.*`` and ``ray.scan``: how soon freed bytes can be used again, and what the scans cost."""

from __future__ import annotations

import time
from collections.abc import Iterator

from gismo_core.bench.clusters.pair import both, one
from gismo_core.bench.clusters.shape import Shape
from gismo_core.bench.clusters.side import STOCK, Side
from gismo_core.bench.group import GIB, KIB, MIB, Context, Group
from gismo_core.bench.result import Measurement, Row

_RAY = ("ray", "numpy")
_FREES_APART_S = 10.0
_OBJECT_BYTES = 16 * MIB
_HELD_S = 30.0


def _row(name: str, what: str, reach: float, aim: float | None = None) -> Row:
    return Row(f"ray.free.lag.{name}", "s", "lower", what, "value", reach, aim)


P50 = _row("p50", "last reference gone → bytes usable, at most one free per 10 s; median", 0.1, 0.06)
P99 = _row("p99", "the same, 99 %", 0.5)
GIL = _row("gil", "the same while a worker elsewhere holds its GIL for 30 s", 1.0)
FULL = _row("full", "the same in a pool that is 95 % full", 0.3)
CHURN = _row("churn", "20,000 live objects, 500 frees/s, in the same run as ray.scan", 3.0, 1.5)
SCAN = Row(
    "ray.scan", "%", "lower", "of a core per node, for scans, 20,000 live objects under churn", "value", 2.0, 1.0
)


def _shape(quick: bool) -> Shape:
    return Shape(nodes=3, plasma_bytes=200 * MIB, pool_bytes=(256 if quick else 1024) * MIB)


def _apart(context: Context, begin: float, number: int) -> None:
    """Wait for the turn of the free of that number."""
    time.sleep(max(0.0, begin + number * context.pick(int(_FREES_APART_S), 1) - time.monotonic()))


def _lags(context: Context) -> Iterator[Measurement]:
    with both(context, _shape(context.quick)) as pair:
        if {P50.name, P99.name} & context.wanted:
            count = context.pick(max(20, context.samples), 3)
            context.say(f"{count} frees, {context.pick(int(_FREES_APART_S), 1)} s apart")
            lags: dict[str, list[float]] = {pair.gismo.name: [], STOCK: []}
            begin = time.monotonic()
            for number in range(count):
                _apart(context, begin, number)
                for side in pair.turns(number):
                    lags[side.name].append(_one(side, number))
            ours = sorted(lags[pair.gismo.name])
            yield Measurement(P50.name, ours, {STOCK: lags[STOCK]})
            # Of so few samples the 99 % are the worst one.
            worst = ours[min(len(ours) - 1, int(0.99 * len(ours)))]
            yield Measurement(P99.name, [worst], {STOCK: [max(lags[STOCK])]}, {"samples": len(ours)})
        if GIL.name in context.wanted:
            yield Measurement(GIL.name, _while_held(context, pair.gismo))
        if FULL.name in context.wanted:
            share = pair.gismo.ask("freeing.fill", share=0.95, nbytes=MIB)
            found = []
            begin = time.monotonic()
            for number in range(max(5, context.pick(context.samples, 2))):
                _apart(context, begin, number)
                found.append(_one(pair.gismo, number, nbytes=4 * MIB))
            pair.gismo.ask("freeing.empty")
            yield Measurement(FULL.name, found, details={"share of the pool in use": share})


def _one(side: Side, number: int, nbytes: int = _OBJECT_BYTES) -> float:
    side.ask("freeing.prepare_lag", nbytes=nbytes, from_task=number % 2 == 1)
    time.sleep(0.3)  # Ray's own messages about it arrive
    return float(side.ask("freeing.lag"))


def _while_held(context: Context, side: Side) -> list[float]:
    found: list[float] = []
    need = context.pick(max(6, context.samples), 2)
    while len(found) < need:
        seconds = context.pick(int(_HELD_S), 4)
        side.ask("freeing.hold_gil", seconds=seconds)
        begin = time.monotonic()
        time.sleep(0.5)
        for number in range(3):
            _apart(context, begin + 1, number)
            lag = _one(side, number)
            if side.ask("freeing.still_held"):
                found.append(lag)
        time.sleep(max(0.0, begin + seconds + 1 - time.monotonic()))
    return found


def _churn_shape(quick: bool) -> Shape:
    return Shape(nodes=4, plasma_bytes=200 * MIB, pool_bytes=256 * MIB if quick else 3 * GIB)


def _churn(context: Context) -> Iterator[Measurement]:
    live, rate, nbytes = context.pick(20_000, 300), context.pick(500, 50), 101 * KIB
    with one(context, _churn_shape(context.quick), gismo=True) as side:
        context.say(f"putting {live} objects")
        side.ask("freeing.prepare_churn", live=live, nbytes=nbytes)
        lags: list[float] = []
        shares: list[float] = []
        rates: list[float] = []
        unfinished = 0
        # The budget of scans is a mean over a minute, so no window is shorter, and the first does not count: it begins
        # with a minute's worth saved up.
        for number in range(context.pick(3, 2)):
            found = side.ask("freeing.churn", seconds=context.pick(60, 5), rate=rate, nbytes=nbytes, probes_per_s=5)
            context.say(f"{number + 1}: {found['rate']:.0f} frees/s, {found['scans']} scans, {found['freed']} freed")
            if number == 0:
                continue
            lags += found["lags_s"]
            rates.append(found["rate"])
            unfinished += found["unfinished"]
            shares.append(100 * found["scan_cpu_s"] / found["wall_s"])
        side.ask("freeing.end_churn")
        yield Measurement(
            CHURN.name,
            lags,
            details={"frees/s": min(rates), "worst, s": max(lags), "still not free at the end": unfinished},
        )
        yield Measurement(SCAN.name, shares, details={"live objects": live})


GROUPS = (
    Group(
        name="ray.free.lag",
        rows=(P50, P99, GIL, FULL),
        run=_lags,
        needs_bytes=lambda quick: _shape(quick).needs_bytes() + 3 * GIB,
        needs_packages=_RAY,
        has_daemons=True,
    ),
    Group(
        name="ray.churn",
        rows=(CHURN, SCAN),
        run=_churn,
        needs_bytes=lambda quick: _churn_shape(quick).needs_bytes() + 2 * GIB,
        needs_packages=_RAY,
        has_daemons=True,
    ),
)
