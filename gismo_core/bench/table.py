"""The figures for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gismo_core.bench.result import Result
from gismo_core.bench.runner import Report

VERDICTS = {"aim": "aim met", "reached": "reached", "missed": "MISSED", "-": "-"}
NOISY = 0.05
HEADS = ("row", "value", "baseline", "ratio", "reach", "aim", "")


def number(value: float) -> str:
    """Three or four digits that matter."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def cells(result: Result) -> tuple[str, ...]:
    """One line of the table."""
    row = result.row
    sign = "≤" if row.better == "lower" and (row.judged == "value" or row.quotient) else "≥"
    unit = f" {row.unit}" if row.judged == "value" else "x"
    ratio = "" if result.ratio is None else f"{number(result.ratio)}x"
    if result.interval is not None:
        ratio += " (95 %: {} to {})".format(*map(number, result.interval))
    return (
        row.name,
        f"{number(result.value)} {row.unit}",
        "" if result.baseline is None else f"{number(result.baseline)} {result.baseline_name}",
        ratio,
        f"{sign} {number(row.reach)}{unit}",
        "" if row.aim is None else f"{sign} {number(row.aim)}{unit}",
        VERDICTS[result.verdict],
    )


def lines(machine: Mapping[str, Any], report: Report) -> Iterator[str]:
    """The whole text."""
    memory = machine["memory_bytes"] / 2**30
    yield (
        f"{machine['cpu']}, {machine['cores']} cores, {memory:.0f} GiB, Linux {machine['kernel']}, {machine['medium']}"
        f" ({machine['huge_pages']['mount']}; huge pages: {machine['huge_pages']['shared']})"
    )
    if machine["quick"]:
        yield "QUICK: small sizes and counts, to see that it runs. These figures say nothing about the store."
    if report.results:
        table = [HEADS, *(cells(result) for result in report.results)]
        widths = [max(len(line[column]) for line in table) for column in range(len(HEADS))]
        for line in table:
            yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    for result in report.results:
        if result.details:
            found = ", ".join(f"{name} {number(value)}" for name, value in result.details.items())
            yield f"{result.row.name}: {found}"
    noisy = {name: share for name, share in report.foreign.items() if share > NOISY}
    if noisy:
        worst = max(noisy.values())
        yield f"Other processes took up to {worst:.0%} of the cores while these were measured: {', '.join(noisy)}"
    for entry in report.skipped:
        yield f"{entry['name']}: skipped: {entry['why']}"
    for entry in report.failed:
        yield f"{entry['name']}: FAILED: {entry['why']}"
