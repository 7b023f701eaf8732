"""The table of counts in docs/results.md: what is written is read again, and added to."""

from __future__ import annotations

from pathlib import Path

from ray_scenarios import counts
from ray_scenarios.outcome import Outcome


def test_runs_are_added_to_what_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    path.write_text("# Results\n\ntext before\n")
    counts.record(path, Outcome("one", "", 1))
    counts.record(path, Outcome("one", "reader", 2, lost=["a", "b"]))
    counts.record(path, Outcome("one", "", 3, leaked=3))
    path.write_text(path.read_text() + "text after\n")
    row = counts.record(path, Outcome("one", "", 4, broken="Ray did not start"))
    assert row == counts.Count(runs=2, lost=0, leaked=3, broken=1)
    text = path.read_text()
    assert counts.read(text) == {("one", ""): row, ("one", "reader"): counts.Count(1, 2, 0, 0)}
    assert text.startswith("# Results\n\ntext before\n")
    assert text.endswith("text after\n")
    assert text.count(counts.TABLE.begin) == text.count(counts.TABLE.end) == 1


def test_a_loss_counts_even_if_the_run_broke_after_it(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    path.write_text("")
    assert counts.record(path, Outcome("one", "", 1, lost=["a"], broken="a time-out")) == counts.Count(1, 1, 0, 0)
