"""Both clusters: side by side and asked by turns, or one after the other where the memory is not enough for two."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import gismo_core
from gismo_core.bench.clusters.shape import Shape
from gismo_core.bench.clusters.side import GISMO, STOCK, Side
from gismo_core.bench.group import Context


@dataclass(frozen=True, slots=True)
class Pair:
    """The two clusters, both up."""

    gismo: Side
    stock: Side

    def turns(self, number: int) -> tuple[Side, Side]:
        """Both, in an order that changes from one turn to the next: whoever comes second finds another machine."""
        return (self.stock, self.gismo) if number % 2 == 0 else (self.gismo, self.stock)


def format_pool(spec: str, nbytes: int) -> None:
    """A populated pool."""
    gismo_core.format(spec, size=nbytes)


@contextmanager
def both(context: Context, shape: Shape) -> Iterator[Pair]:
    """A pool and both clusters."""
    with ExitStack() as stack:
        spec = stack.enter_context(context.medium.fresh(lambda spec: format_pool(spec, shape.pool_bytes)))
        context.say(f"starting two clusters of {shape.nodes} nodes")
        stock = Side(STOCK, shape)
        stack.callback(stock.end)
        stock.ready()  # first: Ray gives up on a node that is not there after 30 s
        gismo = Side(GISMO, shape, store=spec, state_dir=_new_state_dir(context))
        stack.callback(gismo.end)
        gismo.ready()
        yield Pair(gismo, stock)


@contextmanager
def one(context: Context, shape: Shape, *, gismo: bool) -> Iterator[Side]:
    """One cluster, with a fresh pool if it is to have Gismo."""
    with ExitStack() as stack:
        context.say(f"starting a cluster of {shape.nodes} nodes {'with Gismo' if gismo else 'of stock Ray'}")
        if gismo:
            spec = stack.enter_context(context.medium.fresh(lambda spec: format_pool(spec, shape.pool_bytes)))
            side = Side(GISMO, shape, store=spec, state_dir=_new_state_dir(context))
        else:
            side = Side(STOCK, shape)
        stack.callback(side.end)
        side.ready()
        yield side


def by_blocks(context: Context, shape: Shape, samples: int, per_block: int) -> Iterator[tuple[Side, int]]:
    """One cluster after the other, with and without Gismo in turn; each time with how many samples to take."""
    left = samples
    turn = 0
    while left > 0:
        count = min(per_block, left)
        for gismo in (False, True) if turn % 2 == 0 else (True, False):
            with one(context, shape, gismo=gismo) as side:
                yield side, count
        left -= count
        turn += 1


def _new_state_dir(context: Context) -> Path:
    path = context.medium.work / "state-ray"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path
