"""The table of mutants: what is read of `gismo-sim mutants`."""

from __future__ import annotations

from sim import mutation

LINES = """\
caught      12 ring.c:40 ring_send: delete  [ask/lazy/1: not freed]
same        12 ring.c:40 ring_send: drop-first  [one line: as delete]
SURVIVED    13 ring.c:41 ring_send: swap  [38 runs, 448 hits]
UNREACHED   14 name.c:5 make_table: delete
1 of 3 mutants caught, 1 at sites that no scenario reaches
"""


def test_mutants_are_counted_by_source_and_by_what_was_done() -> None:
    hunt = mutation.read(LINES.splitlines())
    rows = hunt.rows().splitlines()
    assert "| `ring.c` | 2 | 1 | 1 | 0 |" in rows
    assert "| `name.c` | 1 | 0 | 0 | 1 |" in rows
    assert "| *delete* | 2 | 1 | 0 | 1 |" in rows
    assert rows[-1] == "| together | 3 | 1 | 1 | 1 |"
    assert [line.split()[0] for line in hunt.survivors] == ["SURVIVED", "UNREACHED"]
