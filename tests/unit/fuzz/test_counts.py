"""The counts of the long fuzzing: what libFuzzer says is read, and the table in docs/results.md is added to."""

from __future__ import annotations

from pathlib import Path

from fuzz import fuzzing, long

RUNNING = """INFO: seed corpus: files: 220 min: 1b max: 100b
#221\tINITED cov: 10 ft: 20 corp: 2/3b exec/s: 0 rss: 60Mb
#4096\tpulse  cov: 10 ft: 20 corp: 2/3b
"""
ENDED = RUNNING + "#5000\tDONE   cov: 10 ft: 20\nstat::number_of_executed_units: 5003\n"


def test_inputs_of_the_corpus_are_not_counted_again() -> None:
    assert fuzzing.new_inputs(RUNNING) == 4096 - 221
    assert fuzzing.new_inputs(ENDED) == 5003 - 221
    assert fuzzing.new_inputs("INFO: loading\n#128\tpulse  cov: 1\n") == 0  # it died in the corpus


def test_parts_add_up(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    path.write_text("# Results\n\ntext before\n")
    long.record(path, "abc", long.Count(1_000_000, 0.5, 0))
    path.write_text(path.read_text() + "text after\n")
    long.record(path, "def+", long.Count(10, 0.25, 1))
    total = long.record(path, "abc", long.Count(2_345, 0.5, 0))
    assert total == long.Count(1_002_355, 1.25, 1)
    text = path.read_text()
    assert long.read(text) == {"abc": long.Count(1_002_345, 1.0, 0), "def+": long.Count(10, 0.25, 1)}
    assert text.startswith("# Results\n\ntext before\n")
    assert text.endswith("text after\n")
    assert "| together | 1,002,355 | 1.25 | 1 |" in text
