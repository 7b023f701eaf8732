"""``ray.data.*``: Ray Data over 2 GiB, against the better of stock's zstd and no compression."""

from __future__ import annotations

from collections.abc import Iterator

from gismo_core.bench.clusters.pair import by_blocks
from gismo_core.bench.clusters.shape import Shape
from gismo_core.bench.clusters.side import GISMO
from gismo_core.bench.group import GIB, MIB, Context, Group
from gismo_core.bench.result import Measurement, Row

_PER_BLOCK = 3
_COMPRESSIONS = ("zstd", "none")
_BLOCKS = 16


def _row(name: str, what: str, reach: float) -> Row:
    return Row(f"ray.data.{name}", "s", "lower", f"Ray Data: {what}, 2 GiB, 4 nodes of 1 CPU", "ratio", reach, 2.5)


SORT = _row("sort", "sort by key", 2.0)
GROUPBY = _row("groupby", "mean of 64 groups by map_groups", 2.0)
SHUFFLE = _row("random_shuffle", "random shuffle", 1.3)
INGEST = _row("ingest", "one epoch into 4 training actors, 1 GB of plasma a node", 1.5)


def _shape(name: str, quick: bool) -> Shape:
    if quick:
        return Shape(nodes=4, plasma_bytes=150 * MIB, pool_bytes=256 * MIB)
    if name == INGEST.name:
        return Shape(nodes=4, plasma_bytes=1_000_000_000, pool_bytes=4 * GIB)
    return Shape(nodes=4, plasma_bytes=GIB + GIB // 2, pool_bytes=6 * GIB)


def _run(context: Context, row: Row) -> Iterator[Measurement]:
    work = "dataset." + row.name.removeprefix("ray.data.")
    nbytes, blocks = context.pick(2 * GIB, 16 * MIB), context.pick(_BLOCKS, 4)
    ours: list[float] = []
    stock: dict[str, list[float]] = {f"stock Ray, {name}": [] for name in _COMPRESSIONS}
    cpu_s = {GISMO: 0.0, **dict.fromkeys(stock, 0.0)}
    for side, count in by_blocks(context, _shape(row.name, context.quick), context.samples, _PER_BLOCK):
        for turn in range(-1, count):
            # With Gismo it is as Gismo sets it by itself.
            for compression in (None,) if side.has_gismo else _COMPRESSIONS:
                side.ask("dataset.settings", compression=compression)
                found, cost_s = side.measured(work, nbytes=nbytes, blocks=blocks)
                # Stock Ray was seen to keep one block of a shuffle that spilled for more than a minute: no reason to give up.
                side.ask("transfer.drop", left_bytes=0 if side.has_gismo else nbytes // 20)
                if turn >= 0:
                    word = GISMO if compression is None else f"stock Ray, {compression}"
                    (ours if compression is None else stock[word]).append(found["seconds"])
                    cpu_s[word] += cost_s
    beside = {f"CPU s/GiB of {word}": spent / (context.samples * nbytes / GIB) for word, spent in cpu_s.items()}
    yield Measurement(row.name, ours, stock, beside)


def _group(row: Row) -> Group:
    return Group(
        name=row.name,
        rows=(row,),
        run=lambda context: _run(context, row),
        needs_bytes=lambda quick: _shape(row.name, quick).needs_bytes(together=False) + (GIB if quick else 5 * GIB),
        needs_packages=("ray", "numpy", "pyarrow", "pandas"),
        has_daemons=True,
    )


GROUPS = tuple(_group(row) for row in (SORT, GROUPBY, SHUFFLE, INGEST))
