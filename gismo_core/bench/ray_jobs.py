"""``ray.objects_per_s.*``, ``ray.shuffle``, ``ray.spill``, ``ray.small.tasks``, ``ray.worker.start``."""

from __future__ import annotations

import compileall
from collections.abc import Iterator
from pathlib import Path

import gismo_core
from gismo_core.bench.clusters.pair import both, by_blocks
from gismo_core.bench.clusters.samples import Samples, median
from gismo_core.bench.clusters.shape import Shape
from gismo_core.bench.clusters.side import GISMO, STOCK
from gismo_core.bench.group import GIB, MIB, Context, Group
from gismo_core.bench.result import Measurement, Row

_RAY = ("ray", "numpy")

OBJECTS = Row(
    "ray.objects_per_s.1MiB",
    "objects/s",
    "higher",
    "objects of 1 MiB made by tasks and read elsewhere",
    "ratio",
    1.0,
    2.0,
)
SHUFFLE = Row(
    "ray.shuffle",
    "s",
    "lower",
    "ray.experimental.shuffle, 4 nodes of 1 CPU, 20 partitions of 200 MB",
    "ratio",
    2.5,
    4.0,
)
SPILL = Row(
    "ray.spill",
    "s",
    "lower",
    "3 GiB on a node with 1 GiB of plasma, made and read; the pool holds them",
    "ratio",
    3.0,
    None,
)
TASKS = Row("ray.small.tasks", "s", "lower", "10,000 empty tasks and 10,000 small puts", "ratio", 0.97, 1.0)
START = Row("ray.worker.start", "ms", "lower", "import and first map in a new worker", "value", 20.0, 5.0)


def _small_nodes(nodes: int) -> Shape:
    return Shape(nodes=nodes, plasma_bytes=500 * MIB, pool_bytes=GIB, warm_both=True)


def _objects(context: Context) -> Iterator[Measurement]:
    count = context.pick(400, 20)
    with both(context, _small_nodes(4)) as pair:
        samples = Samples()
        for turn in range(-1, context.samples):
            for side in pair.turns(turn):
                found, cpu_s = side.measured("jobs.objects", count=count, nbytes=MIB)
                side.ask("transfer.drop")
                if turn >= 0:
                    samples.add(side, found["objects_s"], cpu_s)
        yield Measurement(
            OBJECTS.name,
            [count / seconds for seconds in samples.seconds[GISMO]],
            {STOCK: [count / seconds for seconds in samples.seconds[STOCK]]},
            samples.beside(count * MIB),
        )


def _shuffle_shape(quick: bool) -> Shape:
    if quick:
        return Shape(nodes=4, plasma_bytes=150 * MIB, pool_bytes=256 * MIB)
    return Shape(nodes=4, plasma_bytes=2 * GIB, pool_bytes=6 * GIB)


def _shuffle(context: Context) -> Iterator[Measurement]:
    partitions, nbytes = context.pick(20, 4), context.pick(200_000_000, 4_000_000)
    samples = Samples()
    per_block = 3
    for side, count in by_blocks(context, _shuffle_shape(context.quick), context.samples, per_block):
        for turn in range(-1, count):
            found, cpu_s = side.measured("jobs.shuffle", partitions=partitions, partition_bytes=nbytes)
            side.ask("transfer.drop")
            if turn >= 0:
                samples.add(side, found["shuffle_s"], cpu_s)
    yield samples.measurement(SHUFFLE.name, per_s=1, nbytes=partitions * nbytes)


def _spill_shape(quick: bool) -> Shape:
    if quick:
        return Shape(nodes=2, plasma_bytes=100 * MIB, pool_bytes=512 * MIB)
    return Shape(nodes=2, plasma_bytes=GIB, pool_bytes=4 * GIB)


def _spill(context: Context) -> Iterator[Measurement]:
    count, nbytes = context.pick(30, 10), context.pick(100 * MIB, 20 * MIB)
    with both(context, _spill_shape(context.quick)) as pair:
        samples = Samples()
        spilled: dict[str, list[float]] = {GISMO: [], STOCK: []}
        for turn in range(-1, context.samples):
            for side in pair.turns(turn):
                found, cpu_s = side.measured("jobs.spill", count=count, nbytes=nbytes)
                side.ask("transfer.drop")
                if turn >= 0:
                    samples.add(side, found["spill_s"], cpu_s)
                    spilled[side.name].append(found["spilled_bytes"])
        measured = samples.measurement(SPILL.name, per_s=1, nbytes=count * nbytes)
        beside = {word: value for word, value in measured.details.items() if "CPU" in word}
        beside |= {"GiB spilled": median(spilled[GISMO]) / GIB, "stock's": median(spilled[STOCK]) / GIB}
        yield Measurement(SPILL.name, measured.samples, measured.baselines, beside)


def _tasks(context: Context) -> Iterator[Measurement]:
    # By turns every second: over ten, a shared machine moves by more than the few percent that this is about. Two clusters
    # of stock Ray differ by up to a quarter in a pair of turns that take 13 s each.
    slices = 10
    count = context.pick(10_000, 200) // slices
    with both(context, _small_nodes(1)) as pair:
        samples = Samples()
        for turn in range(-1, context.samples):
            seconds = {GISMO: 0.0, STOCK: 0.0}
            for number in range(slices):
                for side in pair.turns(number):
                    found = side.ask("small.tasks", count=count)
                    side.ask("transfer.drop")
                    seconds[side.name] += found["tasks_s"] + found["puts_s"]
            if turn >= 0:
                for side in (pair.gismo, pair.stock):
                    samples.add(side, seconds[side.name])
        yield samples.measurement(TASKS.name, per_s=1)


def _start(context: Context) -> Iterator[Measurement]:
    # As pip does when it installs a wheel. An editable install has no byte code where PYTHONDONTWRITEBYTECODE is set,
    # and every start would compile 20 modules anew.
    compileall.compile_dir(str(Path(gismo_core.__file__).parent), quiet=2)
    with both(context, _small_nodes(1)) as pair:
        gismo = pair.gismo
        raw_handle = gismo.ask("small.put_one", nbytes=MIB)
        parts: dict[str, list[float]] = {"import_s": [], "install_s": [], "map_s": []}
        for turn in range(-1, context.samples):
            # In workers of the stock cluster, where Gismo is not loaded yet.
            found = pair.stock.ask(
                "small.newcomer", store=gismo.store, state_dir=str(gismo.state_dir), raw_handle=raw_handle
            )
            if turn >= 0:
                for part, seconds in parts.items():
                    seconds.append(found[part] * 1e3)
        whole = [sum(one) for one in zip(*parts.values(), strict=True)]
        beside = {f"ms of {part.removesuffix('_s')}": median(values) for part, values in parts.items()}
        yield Measurement(START.name, whole, details=beside)


def _room(shape: Shape, *, together: bool = True, heap_bytes: int = 0) -> int:
    clusters = 2 if together else 1
    return shape.needs_bytes(together=together) + clusters * ((shape.nodes + 1) * 300 * MIB + heap_bytes)


def _group(name: str, row: Row, run: object, needs: object) -> Group:
    return Group(name, (row,), run, needs, needs_packages=_RAY, has_daemons=True)  # type: ignore[arg-type]


GROUPS = (
    _group("ray.objects_per_s", OBJECTS, _objects, lambda quick: _room(_small_nodes(4))),
    _group(
        "ray.shuffle", SHUFFLE, _shuffle, lambda quick: _room(_shuffle_shape(quick), together=False, heap_bytes=2 * GIB)
    ),
    _group("ray.small", TASKS, _tasks, lambda quick: _room(_small_nodes(1))),
    _group("ray.worker", START, _start, lambda quick: _room(_small_nodes(1))),
    _group("ray.spill", SPILL, _spill, lambda quick: _room(_spill_shape(quick))),
)
