"""Rows, figures, ratios, and whether they are good enough. Pure: nothing here measures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Better = Literal["higher", "lower"]
Verdict = Literal["aim", "reached", "missed", "-"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: its name and unit are fixed, so that figures can be compared over time.

    ``reach`` and ``aim`` are bounds of the ratio where ``judged`` is "ratio", else of the value in ``unit``.
    A ``quotient`` is value ÷ baseline whichever is better; any other ratio says how much better the value is.
    """

    name: str
    unit: str
    better: Better
    what: str
    judged: Literal["value", "ratio"]
    reach: float
    aim: float
    quotient: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """All samples of one row, and of what it is compared with (name → samples), all in the row's unit."""

    name: str
    samples: Sequence[float]
    baselines: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """A row with its figures: the median of the samples, against the best of the baselines' medians."""

    row: Row
    value: float
    baseline: float | None
    baseline_name: str | None
    ratio: float | None
    samples: tuple[float, ...]
    baselines: Mapping[str, tuple[float, ...]]

    def as_json(self) -> dict[str, Any]:
        """The fixed form of one result."""
        return {
            "name": self.row.name,
            "unit": self.row.unit,
            "value": self.value,
            "baseline": self.baseline,
            "baseline_name": self.baseline_name,
            "ratio": self.ratio,
            "better": self.row.better,
            "samples": list(self.samples),
        }

    @property
    def verdict(self) -> Verdict:
        """Whether the judged figure meets the aim, at least what must be reached, or neither."""
        judged = self.value if self.row.judged == "value" else self.ratio
        if judged is None:
            return "-"
        upwards = self.row.better == "higher" if self.row.judged == "value" else not _shrinks(self.row)
        if judged >= self.row.aim if upwards else judged <= self.row.aim:
            return "aim"
        if judged >= self.row.reach if upwards else judged <= self.row.reach:
            return "reached"
        return "missed"


def _shrinks(row: Row) -> bool:
    """Whether a smaller ratio is the better one: only where the row names the quotient of what should be small."""
    return row.quotient and row.better == "lower"


def ratio_of(row: Row, value: float, baseline: float) -> float:
    """How much better value is than baseline (> 1 is better), or the quotient that the row names."""
    if row.quotient or row.better == "higher":
        return value / baseline
    return baseline / value


def judge(row: Row, measurement: Measurement) -> Result:
    """Medians, the best baseline, the ratio."""
    if not measurement.samples:
        raise ValueError(f"{row.name}: no sample was taken")
    value = statistics.median(measurement.samples)
    medians = {name: statistics.median(samples) for name, samples in measurement.baselines.items()}
    best = None
    if medians:
        best = (max if row.better == "higher" else min)(medians, key=lambda name: medians[name])
    return Result(
        row=row,
        value=value,
        baseline=medians[best] if best is not None else None,
        baseline_name=best,
        ratio=ratio_of(row, value, medians[best]) if best is not None else None,
        samples=tuple(measurement.samples),
        baselines={name: tuple(samples) for name, samples in measurement.baselines.items()},
    )
