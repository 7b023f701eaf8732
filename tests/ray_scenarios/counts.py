"""How often each scenario was run, with what was lost and leaked: a table between two marks in docs/results.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from marked_table import MarkedTable, replace_file
from ray_scenarios.outcome import Outcome

TABLE = MarkedTable(
    "<!-- ray scenarios: begin; `make test-ray-long` adds to this table -->",
    "<!-- ray scenarios: end -->",
    "| scenario | killed | runs | lost | leaked | proved nothing |\n| --- | --- | --- | --- | --- | --- |",
)
_ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$")

Key = tuple[str, str]  # scenario, who is killed ("" for nobody)


@dataclass(slots=True)
class Count:
    """Of one scenario and kill."""

    runs: int = 0  # that proved something
    lost: int = 0  # values
    leaked: int = 0  # records
    broken: int = 0  # runs in which something else failed

    def add(self, outcome: Outcome) -> None:
        """One more run."""
        if outcome.broken and not (outcome.lost or outcome.leaked):
            self.broken += 1
            return
        self.runs += 1
        self.lost += len(outcome.lost)
        self.leaked += outcome.leaked


def read(text: str) -> dict[Key, Count]:
    """The counts of a document; none where it has no table yet."""
    found: dict[Key, Count] = {}
    for line in TABLE.rows(text):
        match = _ROW.match(line)
        if match:
            name, kill, *numbers = match.groups()
            found[name, "" if kill == "nobody" else kill] = Count(*map(int, numbers))
    return found


def written(text: str, counts: Mapping[Key, Count]) -> str:
    """The document with these counts in the place of the old ones, or with a table at its end."""
    rows = [
        f"| `{name}` | {kill or 'nobody'} | {one.runs} | {one.lost} | {one.leaked} | {one.broken} |"
        for (name, kill), one in sorted(counts.items())
    ]
    return TABLE.put(text, "\n".join(rows))


def record(path: Path, outcome: Outcome) -> Count:
    """Add one run to the document; the sum of its row."""
    text = path.read_text()
    counts = read(text)
    count = counts.setdefault((outcome.scenario, outcome.kill), Count())
    count.add(outcome)
    replace_file(path, written(text, counts))
    return count
