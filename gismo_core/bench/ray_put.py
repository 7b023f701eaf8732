"""``ray.put.*``: ray.put in the driver, against stock Ray's with its memory allocated beforehand."""

from __future__ import annotations

from collections.abc import Iterator

from gismo_core.bench.clusters.pair import both
from gismo_core.bench.clusters.samples import Samples, median
from gismo_core.bench.clusters.shape import Shape
from gismo_core.bench.clusters.side import GISMO
from gismo_core.bench.group import GIB, KIB, MIB, Context, Group
from gismo_core.bench.memory import has_huge_pages
from gismo_core.bench.result import Measurement, Row

# Size, its bytes, how many make one sample, and the bound.
_SIZES = (
    ("1GiB", GIB, 1, 1.3),
    ("16MiB", 16 * MIB, 32, 1.5),
    ("1MiB", MIB, 128, 1.2),
    ("64KiB", 64 * KIB, 256, 0.95),
)
_WARM_UP = 3

IN_PLACE = Row(
    "ray.put.1GiB.inplace",
    "ms",
    "lower",
    "ray.put of an array of 1 GiB made by gismo_core.ray.empty",
    "ratio",
    50.0 if has_huge_pages() else 2.5,
    None,
)
ROWS = tuple(
    Row(f"ray.put.{size}", "ms", "lower", f"ray.put of an array of {size}", "ratio", reach, None)
    for size, _, _, reach in _SIZES
)


def _shape(quick: bool) -> Shape:
    if quick:
        return Shape(nodes=1, plasma_bytes=200 * MIB, pool_bytes=256 * MIB)
    # Stock frees behind its user's back: room for more than one.
    return Shape(nodes=1, plasma_bytes=2 * GIB + GIB // 2, pool_bytes=2 * GIB, warm_both=True)


def _put(context: Context) -> Iterator[Measurement]:
    with both(context, _shape(context.quick)) as pair:
        for size, whole_bytes, whole_count, _ in _SIZES:
            name = f"ray.put.{size}"
            if name not in context.wanted:
                continue
            nbytes = whole_bytes if size != "1GiB" else context.pick(GIB, 32 * MIB)
            count = context.pick(whole_count, min(4, whole_count))
            context.say(f"put of {size}: {context.samples} pairs")
            samples = Samples()
            copies: list[float] = []
            for turn in range(-_WARM_UP, context.samples):
                for side in pair.turns(turn):
                    found, cpu_s = side.measured("putting.put", nbytes=nbytes, count=count)
                    if side.name == GISMO:
                        copies.append(side.ask("putting.memcpy", nbytes=nbytes)["memcpy_s"])
                    side.ask("transfer.drop")
                    if turn >= 0:
                        samples.add(side, found["put_s"], cpu_s)
            measured = samples.measurement(name, nbytes=nbytes, count=count)
            shares = {"share of np.copyto's speed": median(copies) / median(samples.seconds[GISMO])}
            cpu = {word: value for word, value in measured.details.items() if "CPU" in word}
            yield Measurement(name, measured.samples, measured.baselines, shares | cpu)
        if IN_PLACE.name in context.wanted:
            samples = Samples()
            context.say(f"put of an array that lies in the store: {context.samples} pairs")
            for turn in range(-_WARM_UP, context.samples):
                for side in pair.turns(turn):
                    found = side.ask("putting.put_in_place", nbytes=context.pick(GIB, 32 * MIB), number=turn + 10)
                    side.ask("transfer.drop")
                    if turn >= 0:
                        samples.add(side, found["put_s"])
            yield samples.measurement(IN_PLACE.name)


GROUPS = (
    Group(
        name="ray.put",
        rows=(*ROWS, IN_PLACE),
        run=_put,
        needs_bytes=lambda quick: _shape(quick).needs_bytes() + (GIB if quick else 5 * GIB),
        needs_packages=("ray", "numpy"),
        has_daemons=True,
    ),
)
