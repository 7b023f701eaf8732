"""All mutants of the core, hunted by `gismo-sim`; their table in docs/results.md. Behind `make test-mutation`.

python -m sim.mutation [--seconds OF_EACH] [--jobs N] [--results PATH] [--survivors PATH]

A mutant is the core with one flush, fence, invalidation or store changed at one place. One that nothing notices in its time is
a survivor: a scenario is missing, or what it changes is needless. Ends with 1 if there are any.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from marked_table import MarkedTable, replace_file
from native_build import built

ROOT = Path(__file__).resolve().parents[2]
TABLE = MarkedTable(
    "<!-- mutants: begin; `make test-mutation` writes this table -->",
    "<!-- mutants: end -->",
    "| source | mutants | caught | not caught | at places that no scenario comes to |\n| --- | --- | --- | --- | --- |",
)
_LINE = re.compile(r"^(caught|SURVIVED|UNREACHED|same) +\d+ (\S+?):(\d+) (\w+): ([\w-]+)")


@dataclass(slots=True)
class Hunt:
    """What became of the mutants: by source, and by what was done to them."""

    by_source: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_operator: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    survivors: list[str] = field(default_factory=list)

    def note(self, line: str) -> bool:
        """One line of `gismo-sim mutants`; False if it is none of a mutant."""
        match = _LINE.match(line)
        if match is None:
            return False
        fate, source, _, _, operator = match.groups()
        if fate != "same":  # of a single line: as the one that leaves all of it out
            self.by_source[source][fate] += 1
            self.by_operator[operator][fate] += 1
        if fate in ("SURVIVED", "UNREACHED"):
            self.survivors.append(line.rstrip())
        return True

    def rows(self) -> str:
        """The lines of the table."""
        parts = [(f"`{source}`", counts) for source, counts in sorted(self.by_source.items())]
        parts += [(f"*{operator}*", counts) for operator, counts in sorted(self.by_operator.items())]
        parts.append(("together", sum(self.by_source.values(), Counter())))
        return "\n".join(
            f"| {name} | {counts.total()} | {counts['caught']} | {counts['SURVIVED']} | {counts['UNREACHED']} |"
            for name, counts in parts
        )


def read(lines: Iterable[str], say_every_s: float = 20.0) -> Hunt:
    """All of them, with progress on stderr."""
    hunt, said = Hunt(), time.monotonic()
    for line in lines:
        if hunt.note(line) and time.monotonic() - said > say_every_s:
            said = time.monotonic()
            total: Counter[str] = sum(hunt.by_source.values(), Counter())
            print(f"  {total.total()} mutants: {total['caught']} caught, {total['SURVIVED']} not", file=sys.stderr)
    return hunt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sim.mutation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each mutant may live (6)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time (one for each core)")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "docs/results.md", help="where the table is (docs/results.md)"
    )
    parser.add_argument(
        "--survivors", type=Path, default=ROOT / "build/mutants-that-survive.txt", help="where they are listed"
    )
    asked = parser.parse_args()
    program = built("plain", "gismo-sim")
    command = [str(program), "mutants", "--seconds", str(asked.seconds), "--jobs", str(asked.jobs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            hunt = read(process.stdout)
        except BaseException:
            process.terminate()
            raise
    if process.returncode not in (0, 1):
        return process.returncode
    replace_file(asked.results, TABLE.put(asked.results.read_text(), hunt.rows()))
    asked.survivors.write_text("\n".join(hunt.survivors) + "\n")
    print(hunt.rows().splitlines()[-1])
    print(f"those that were not caught: {asked.survivors}")
    return 1 if hunt.survivors else 0


if __name__ == "__main__":
    sys.exit(main())
