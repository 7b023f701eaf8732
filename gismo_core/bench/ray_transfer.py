"""``ray.remote_get.*``, ``ray.return.*``, ``ray.broadcast.*``, ``ray.list.*``, ``ray.torch.*``: objects on another node."""

from __future__ import annotations

from collections.abc import Iterator

from gismo_core.bench.clusters.pair import Pair, both
from gismo_core.bench.clusters.samples import Samples
from gismo_core.bench.clusters.shape import Shape
from gismo_core.bench.clusters.side import GISMO, STOCK
from gismo_core.bench.group import GIB, KIB, MIB, Context, Group
from gismo_core.bench.memory import has_huge_pages
from gismo_core.bench.result import Measurement, Row

_PAIRS = 16  # the bound asks for 15 at least
_WARM_UP = 2
_SMALL = (
    ("4KiB", 4 * KIB, 40),
    ("64KiB", 64 * KIB, 40),
    ("128KiB", 128 * KIB, 40),
    ("1MiB", MIB, 40),
    ("16MiB", 16 * MIB, 4),
)


def _row(name: str, what: str, reach: float, aim: float | None, **more: object) -> Row:
    return Row(name, "ms", "lower", what, "ratio", reach, aim, **more)  # type: ignore[arg-type]


GET = _row("ray.remote_get.1GiB", "get of 1 GiB that another node put, mapped", 200.0, 500.0)
GET_READ = _row(
    "ray.remote_get_read.1GiB", "the same, and every byte read; by a process that knows the pool", 12.0, 18.0
)
GET_READ_NEW = _row(
    "ray.remote_get_read.1GiB.new_worker",
    "the same by a worker that has not touched the pool before",
    12.0 if has_huge_pages() else 5.0,
    18.0,
)
FLAT = _row("ray.remote_get.flat", "Gismo's get of 1 GiB ÷ its get of 1 MiB", 1.5, 1.0, quotient=True)
SMALL = tuple(
    Row(f"ray.remote_get.{size}", "ms", "lower", f"get of {size} that another node put", "interval", 0.95, 1.0)
    for size, _, _ in _SMALL
)
RETURN = _row(
    "ray.return.1GiB", "an actor returns an array that it holds, the driver elsewhere reads every byte", 10.0, None
)
BROADCAST = _row("ray.broadcast.1GiB", "one object of 1 GiB to 4 nodes", 100.0, None)
COPIES = Row(
    "ray.memory.copies",
    "copies",
    "lower",
    "bytes in the pool and all plasma stores while 4 nodes hold 1 GiB, ÷ 1 GiB",
    "value",
    1.05,
    1.0,
)
LIST = _row("ray.list.10000x100KB", "get of a list of 10,000 arrays of 100 KB that another node put", 10.0, None)
TORCH = _row("ray.torch.byvalue.8x256MiB", "a tensor of 256 MiB passed by value to 8 actors on 4 nodes", 5.0, None)


def _two_nodes(quick: bool) -> Shape:
    if quick:
        return Shape(nodes=2, plasma_bytes=200 * MIB, pool_bytes=256 * MIB)
    return Shape(nodes=2, plasma_bytes=GIB + GIB // 2, pool_bytes=GIB + GIB // 2)


def _four_nodes(quick: bool) -> Shape:
    if quick:
        return Shape(nodes=4, plasma_bytes=150 * MIB, pool_bytes=256 * MIB)
    return Shape(nodes=4, plasma_bytes=GIB + GIB // 8, pool_bytes=GIB + GIB // 2)


def _needs(shape: Shape, heap_bytes: int) -> int:
    """Stores, and what both clusters' processes have of their own."""
    return shape.needs_bytes() + 2 * heap_bytes + 2 * (shape.nodes + 1) * 300 * MIB


# ---- remote_get ----


def _get(context: Context) -> Iterator[Measurement]:
    with both(context, _two_nodes(context.quick)) as pair:
        small: dict[str, Samples] = {}
        for size, nbytes, count in _SMALL:
            name = f"ray.remote_get.{size}"
            if name in context.wanted or (size == "1MiB" and FLAT.name in context.wanted):
                pairs = context.pick(max(_PAIRS, context.samples), 2)
                small[size] = _gets(context, pair, nbytes, context.pick(count, 4), pairs)
            if name in context.wanted:
                yield small[size].measurement(name, nbytes=nbytes, count=context.pick(count, 4))
        nbytes = context.pick(GIB, 16 * MIB)
        if {GET.name, FLAT.name} & context.wanted:
            large = _gets(context, pair, nbytes, 1, context.samples)
            yield large.measurement(GET.name, nbytes=nbytes)
            if FLAT.name in context.wanted:
                yield Measurement(
                    FLAT.name,
                    [seconds * 1e3 for seconds in large.seconds[GISMO]],
                    {"get of 1 MiB": [seconds * 1e3 for seconds in small["1MiB"].seconds[GISMO]]},
                )
        if GET_READ.name in context.wanted:
            yield _gets(context, pair, nbytes, 1, context.samples, whole=True).measurement(GET_READ.name, nbytes=nbytes)
        if GET_READ_NEW.name in context.wanted:
            yield _new_workers(context, pair, nbytes)


def _gets(context: Context, pair: Pair, nbytes: int, count: int, pairs: int, *, whole: bool = False) -> Samples:
    samples = Samples()
    context.say(f"get of {nbytes // KIB} KiB{', read through' if whole else ''}: {pairs} pairs")
    for turn in range(-_WARM_UP, pairs):
        for side in pair.turns(turn):
            side.ask("transfer.prepare_get", nbytes=nbytes, count=count)
            found, cpu_s = side.measured("transfer.get", whole=whole)
            side.ask("transfer.drop")
            if turn >= 0:
                samples.add(side, found["get_s"] + found["read_s"], cpu_s)
    return samples


def _new_workers(context: Context, pair: Pair, nbytes: int) -> Measurement:
    samples = Samples()
    context.say(f"get by new workers: {context.samples} pairs")
    for turn in range(-1, context.samples):
        for side in pair.turns(turn):
            side.ask("transfer.prepare_get", nbytes=nbytes, count=1)
            side.ask("transfer.new_reader")
            found, cpu_s = side.measured("transfer.get_in_new_reader", whole=True)
            side.ask("transfer.drop")
            if turn >= 0:
                samples.add(side, found["get_s"] + found["read_s"], cpu_s)
    return samples.measurement(GET_READ_NEW.name, nbytes=nbytes)


# ---- return, list ----


def _return(context: Context) -> Iterator[Measurement]:
    nbytes = context.pick(GIB, 16 * MIB)
    with both(context, _two_nodes(context.quick)) as pair:
        samples, mapped = Samples(), Samples()
        for side in pair.turns(0):
            side.ask("transfer.prepare_returned", nbytes=nbytes)
        for turn in range(-_WARM_UP, context.samples):
            for side in pair.turns(turn):
                found, cpu_s = side.measured("transfer.returned", number=turn + 10)
                side.ask("transfer.drop")
                if turn >= 0:
                    samples.add(side, found["get_s"] + found["read_s"], cpu_s)
                    mapped.add(side, found["get_s"])
        measured = samples.measurement(RETURN.name, nbytes=nbytes)
        for name, word in ((GISMO, "ms until it is mapped"), (STOCK, "stock's")):
            measured.details[word] = sorted(mapped.seconds[name])[context.samples // 2] * 1e3  # type: ignore[index]
        yield measured


def _list(context: Context) -> Iterator[Measurement]:
    count, nbytes = context.pick(10_000, 100), 100_000
    with both(context, _two_nodes(context.quick)) as pair:
        samples = Samples()
        for turn in range(-_WARM_UP, context.samples):
            for side in pair.turns(turn):
                side.ask("transfer.prepare_list", nbytes=nbytes, count=count)
                found, cpu_s = side.measured("transfer.get_list")
                side.ask("transfer.drop")
                if turn >= 0:
                    samples.add(side, found["get_s"], cpu_s)
        yield samples.measurement(LIST.name, nbytes=count * nbytes)


# ---- broadcast ----


def _broadcast(context: Context) -> Iterator[Measurement]:
    nbytes = context.pick(GIB, 16 * MIB)
    shape = _four_nodes(context.quick)
    with both(context, shape) as pair:
        samples = Samples()
        copies: dict[str, list[float]] = {GISMO: [], STOCK: []}
        for turn in range(-_WARM_UP, context.samples):
            for side in pair.turns(turn):
                side.ask("transfer.prepare_broadcast", nbytes=nbytes)
                found, cpu_s = side.measured("transfer.broadcast")
                held = side.ask("transfer.copies")
                side.ask("transfer.drop")
                if turn >= 0:
                    samples.add(side, found["broadcast_s"], cpu_s)
                    copies[side.name].append(held)
        # One node has it from the start.
        yield samples.measurement(BROADCAST.name, nbytes=nbytes, copies=shape.nodes - 1)
        yield Measurement(COPIES.name, copies[GISMO], {STOCK: copies[STOCK]})


# ---- torch ----


def _torch_shape(quick: bool) -> Shape:
    if quick:
        return Shape(nodes=4, plasma_bytes=150 * MIB, pool_bytes=256 * MIB)
    # All eight copies lie in the plasma of the driver's node at first.
    return Shape(nodes=4, plasma_bytes=2 * GIB + GIB // 4, pool_bytes=2 * GIB + GIB // 2, warm=False)


def _torch(context: Context) -> Iterator[Measurement]:
    nbytes, actors = context.pick(256 * MIB, 4 * MIB), 8
    with both(context, _torch_shape(context.quick)) as pair:
        samples = Samples()
        for turn in range(-_WARM_UP, context.samples):
            for side in pair.turns(turn):
                found, cpu_s = side.measured("transfer.by_value", actors=actors, nbytes=nbytes, number=turn + 10)
                side.ask("transfer.drop")
                if turn >= 0:
                    samples.add(side, found["by_value_s"], cpu_s)
        yield samples.measurement(TORCH.name, nbytes=actors * nbytes)


_RAY = ("ray", "numpy")

GROUPS = (
    Group(
        name="ray.remote_get",
        rows=(GET, GET_READ, GET_READ_NEW, FLAT, *SMALL),
        run=_get,
        needs_bytes=lambda quick: _needs(_two_nodes(quick), 64 * MIB if quick else GIB),
        needs_packages=_RAY,
        has_daemons=True,
    ),
    Group(
        name="ray.return",
        rows=(RETURN,),
        run=_return,
        needs_bytes=lambda quick: _needs(_two_nodes(quick), 64 * MIB if quick else GIB),
        needs_packages=_RAY,
        has_daemons=True,
    ),
    Group(
        name="ray.broadcast",
        rows=(BROADCAST, COPIES),
        run=_broadcast,
        needs_bytes=lambda quick: _needs(_four_nodes(quick), 64 * MIB if quick else GIB),
        needs_packages=_RAY,
        has_daemons=True,
    ),
    Group(
        name="ray.list",
        rows=(LIST,),
        run=_list,
        needs_bytes=lambda quick: _needs(_two_nodes(quick), 64 * MIB if quick else GIB),
        needs_packages=_RAY,
        has_daemons=True,
    ),
    Group(
        name="ray.torch",
        rows=(TORCH,),
        run=_torch,
        needs_bytes=lambda quick: _needs(_torch_shape(quick), 512 * MIB),
        needs_packages=(*_RAY, "torch"),
        has_daemons=True,
    ),
)
