"""Rows that are measured together, and the report of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gismo_core.bench.result import Measurement, Row


class NotToBeMeasured(Exception):
    """What the rows need is not on this machine; the message says what."""


@dataclass(frozen=True, slots=True)
class Group:
    """measure: samples asked for → the figures of the rows, in any order."""

    name: str
    rows: tuple[Row, ...]
    measure: Callable[[int], Sequence[Measurement]]
    on_cluster: bool = False


def row(name: str, unit: str, what: str, reach: float, aim: float) -> Row:
    """One that is better when small, judged by its value."""
    return Row(name, unit, "lower", what, "value", reach, aim)
