"""Rows, figures, ratios, and whether they are good enough. Pure: nothing here measures."""

from __future__ import annotations

import math
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
    With "interval" a bound holds if the 95 % interval of the ratios of pairs reaches it: for rows that ask whether
    something is no worse, where a median alone would be a coin thrown. ``aim`` is None where the bound is all there is.
    A ``quotient`` is value ÷ baseline whichever is better; any other ratio says how much better the value is.
    """

    name: str
    unit: str
    better: Better
    what: str
    judged: Literal["value", "ratio", "interval"]
    reach: float
    aim: float | None
    quotient: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """All samples of one row, and of what it is compared with (name → samples), all in the row's unit."""

    name: str
    samples: Sequence[float]
    baselines: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """With "interval" the samples of the one baseline were taken in pairs with the row's own."""
    details: Mapping[str, float] = field(default_factory=dict)
    """What else was measured with it; names say the units."""


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
    details: Mapping[str, float] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    """95 % interval of the ratio, where the row is judged by it."""

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
        upwards = self.row.better == "higher" if self.row.judged == "value" else not _shrinks(self.row)
        judged = self.value if self.row.judged == "value" else self.ratio
        if self.row.judged == "interval":
            judged = None if self.interval is None else self.interval[1 if upwards else 0]
        if judged is None:
            return "-"
        for name, bound in (("aim", self.row.aim), ("reached", self.row.reach)):
            if bound is not None and (judged >= bound if upwards else judged <= bound):
                return "aim" if name == "aim" else "reached"
        return "missed"


def _shrinks(row: Row) -> bool:
    """Whether a smaller ratio is the better one: only where the row names the quotient of what should be small."""
    return row.quotient and row.better == "lower"


def ratio_of(row: Row, value: float, baseline: float) -> float:
    """How much better value is than baseline (> 1 is better), or the quotient that the row names."""
    if row.quotient or row.better == "higher":
        return value / baseline
    return baseline / value


def interval_of(row: Row, samples: Sequence[float], baseline: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the geometric mean of the ratios of pairs (Student's t of their logarithms).

    ValueError: the samples are not pairs, or fewer than 2.
    """
    logs = [math.log(ratio_of(row, value, other)) for value, other in zip(samples, baseline, strict=True)]
    if len(logs) < 2:
        raise ValueError(f"{row.name}: an interval needs 2 pairs at least")
    middle = statistics.fmean(logs)
    half = _student(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle - half), math.exp(middle + half)


def _student(freedom: int) -> float:
    """The 0.975 quantile of Student's t: exact to 0.2 % for 3 and more degrees of freedom (Cornish-Fisher)."""
    z = statistics.NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / float(freedom) ** power for power, term in enumerate(terms, 1))


def judge(row: Row, measurement: Measurement) -> Result:
    """Medians, the best baseline, the ratio."""
    if not measurement.samples:
        raise ValueError(f"{row.name}: no sample was taken")
    value = statistics.median(measurement.samples)
    medians = {name: statistics.median(samples) for name, samples in measurement.baselines.items()}
    best = None
    if medians:
        best = (max if row.better == "higher" else min)(medians, key=lambda name: medians[name])
    interval = None
    if row.judged == "interval":
        (paired,) = measurement.baselines.values()
        interval = interval_of(row, measurement.samples, paired)
    return Result(
        row=row,
        value=value,
        baseline=medians[best] if best is not None else None,
        baseline_name=best,
        ratio=ratio_of(row, value, medians[best]) if best is not None else None,
        samples=tuple(measurement.samples),
        baselines={name: tuple(samples) for name, samples in measurement.baselines.items()},
        details=dict(measurement.details),
        interval=interval,
    )
