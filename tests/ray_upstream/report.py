"""What is said of each file of Ray's tests, and the table of them in docs/results.md."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from marked_table import MarkedTable, replace_file
from ray_upstream.compare import DIFFERENT, FLAKY, SAME, Test
from ray_upstream.outcomes import PASSED

TABLE = MarkedTable(
    "<!-- ray's own tests: begin; `make test-ray-upstream` adds to this table -->",
    "<!-- ray's own tests: end -->",
    "| Ray | test file | of | date | tests | pass in both | same | different | flaky | objects stored | MiB stored |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)
_ROW = re.compile(r"^\| ([^|]+) \| `([^`]+)` \|.*\|$")


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file, run with stock Ray and with Gismo."""

    file: str  # "ray/tests/test_actor.py"
    tests: tuple[Test, ...]
    stored_objects: int  # in the run with Gismo, all reruns left out
    stored_bytes: int
    uncollected: str = ""  # why none of its tests could be run
    cut_off: bool = False  # its time was over before all tests had run: `tests` are those that ran on both sides

    def count(self, verdict: str) -> int:
        """Tests with this verdict."""
        return sum(one.verdict == verdict for one in self.tests)

    @property
    def passed(self) -> int:
        """Tests that pass at once on both sides."""
        return sum(one.off[0].what == one.on[0].what == PASSED for one in self.tests)

    def as_json(self) -> dict[str, Any]:
        """For json.dumps."""
        tests = {
            one.test: {
                "verdict": one.verdict,
                "off": [asdict(each) for each in one.off],
                "on": [asdict(each) for each in one.on],
            }
            for one in self.tests
        }
        return {
            "file": self.file,
            "uncollected": self.uncollected,
            "cut_off": self.cut_off,
            "stored_objects": self.stored_objects,
            "stored_bytes": self.stored_bytes,
            **{verdict: self.count(verdict) for verdict in (SAME, DIFFERENT, FLAKY)},
            "tests": tests,
        }

    def lines(self) -> list[str]:
        """For people: one line, and one for each test that is not the same."""
        if self.uncollected:
            return [f"{self.file}: could not be collected: {self.uncollected}"]
        first = (
            f"{self.file}: {len(self.tests)} tests{' (not all: its time was over)' if self.cut_off else ''}, {self.passed} pass in both, {self.count(SAME)} the same, "
            f"{self.count(DIFFERENT)} different, {self.count(FLAKY)} flaky; {self.stored_objects} objects of "
            f"{self.stored_bytes / 1024**2:.1f} MiB went into the store"
        )
        marks = {DIFFERENT: "DIFFERENT", FLAKY: "flaky"}
        return [
            first,
            *(
                f"  {marks[one.verdict]}{' with Gismo only' if one.only_with_gismo else ''}: {one.describe()}"
                for one in self.tests
                if one.verdict != SAME
            ),
        ]


def write_table(path: Path, reports: Iterable[FileReport], *, ray: str, source: str, date: str) -> None:
    """Put a row for each file that was collected into the document's table, in the place of an older one of it."""
    text = path.read_text()
    rows = {match.groups(): line for line in TABLE.rows(text) if (match := _ROW.match(line))}
    for one in reports:
        if not one.uncollected:
            rows[ray, one.file] = (
                f"| {ray} | `{one.file}` | {source} | {date} | {len(one.tests)}{' (not all)' if one.cut_off else ''} | {one.passed} | {one.count(SAME)} | "
                f"{one.count(DIFFERENT)} | {one.count(FLAKY)} | {one.stored_objects} | {one.stored_bytes / 1024**2:.0f} |"
            )
    body = "\n".join(line for _, line in sorted(rows.items()))
    replace_file(path, TABLE.put(text, body))
