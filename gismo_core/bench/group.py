"""What a group of rows is, and what it is given to run with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gismo_core.bench.medium import Medium
from gismo_core.bench.result import Measurement, Row

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Context:
    """Where and how a group runs. ``wanted``: the rows asked for; a group may leave out what none of them needs."""

    medium: Medium
    wanted: frozenset[str]
    quick: bool = False
    samples: int = 7

    def pick(self, full: int, quick: int) -> int:
        """A size or count: the row's own, or the small one of ``--quick``, which runs the same code."""
        return quick if self.quick else full

    def state_dir(self, name: str = "host") -> Path:
        """A state directory of its own: one is one host."""
        path = self.medium.work / f"state-{name}"
        path.mkdir(exist_ok=True)
        return path

    def say(self, text: str) -> None:
        """Progress, on stderr."""
        print(f"  {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are measured together, in one process and one store."""

    name: str
    rows: tuple[Row, ...]
    run: Callable[[Context], Iterable[Measurement]]
    needs_bytes: Callable[[bool], int]
    """Room that the group needs on the medium, by whether it is quick."""
    needs_packages: tuple[str, ...] = ()
    has_daemons: bool = False
    """Whether processes work for it that are not its children, so that they look like other people's."""
    store_bytes: Callable[[bool], int] | None = None
    """Size of its store where that is more than needs_bytes (a sparse one)."""
    lacks: Callable[[], str | None] | None = None
    """What else it needs that is not there, and how to get it; None if nothing is missing."""
