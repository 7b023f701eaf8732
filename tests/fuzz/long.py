"""Damaged stores for hours; what was run is counted in docs/results.md. Behind `make test-fuzz-long`.

python -m fuzz.long --hours 1 --jobs 2 [--results PATH]

The parts of a long run add up: each goes on with the inputs that the ones before found worth keeping
(build/fuzz/corpus), from another seed, and only new inputs are counted, in a row for each state of the core's sources.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from fuzz import fuzzing
from marked_table import MarkedTable, replace_file

TABLE = MarkedTable(
    "<!-- fuzz: begin; `make test-fuzz-long` adds to this table -->",
    "<!-- fuzz: end -->",
    "| core (last commit of `gismo_core/native`) | damaged stores | processor hours | failures |\n| --- | --- | --- | --- |",
)
_ROW = re.compile(r"^\| (\S+) \| ([\d,]+) \| ([\d.]+) \| (\d+) \|$")
_PART_S = 600
_INTERRUPTED = 72  # libFuzzer's exit code after SIGINT


@dataclass(slots=True)
class Count:
    """Of one state of the core."""

    inputs: int = 0
    hours: float = 0.0  # of one processor
    failures: int = 0


def read(text: str) -> dict[str, Count]:
    """The counts of a document, by state of the core."""
    found = {}
    for line in TABLE.rows(text):
        if match := _ROW.match(line):
            found[match[1]] = Count(int(match[2].replace(",", "")), float(match[3]), int(match[4]))
    found.pop("together", None)
    return found


def record(path: Path, core: str, more: Count) -> Count:
    """Add to the document; the sum of all its rows."""
    text = path.read_text()
    counts = read(text)
    row = counts.setdefault(core, Count())
    row.inputs += more.inputs
    row.hours += more.hours
    row.failures += more.failures
    rows = counts.values()
    total = Count(sum(r.inputs for r in rows), sum(r.hours for r in rows), sum(r.failures for r in rows))
    lines = [
        f"| {name} | {one.inputs:,} | {one.hours:.2f} | {one.failures} |"
        for name, one in [*sorted(counts.items()), ("together", total)]
    ]
    replace_file(path, TABLE.put(text, "\n".join(lines)))
    return total


def core_state() -> str:
    """The last commit of the core's sources, with a + where they were changed since."""
    git = ["git", "-C", str(fuzzing.ROOT)]
    where = str(fuzzing.CORE)
    commit = subprocess.run([*git, "log", "-1", "--format=%h", "--abbrev=10", "--", where], capture_output=True, text=True, check=True)  # fmt: skip
    changed = subprocess.run([*git, "status", "--porcelain", "--", where], capture_output=True, text=True, check=True)
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


class Campaign:
    """Parts of some minutes, counted one by one; each job is a thread that runs one after the other."""

    def __init__(self, results: Path, hours: float) -> None:
        self._program, self._core, self._results = fuzzing.target(), core_state(), results
        self._end = time.monotonic() + hours * 3600
        self._lock = threading.Lock()
        self.over = threading.Event()
        self.inputs = self.failures = 0

    def work(self, job: int, memory: Path) -> None:
        """Until the time is over, the core fails, or somebody says stop."""
        corpus, log = fuzzing.BUILD / "corpus" / f"{job}", fuzzing.BUILD / f"long-{job}.log"
        if not corpus.exists():
            fuzzing.make_seeds(corpus, job)
        for part in itertools.count():
            seconds = min(_PART_S, round(self._end - time.monotonic()))
            if self.over.is_set() or seconds <= 0:
                return
            began = time.monotonic()
            store, seed = memory / f"{job}-{part}", random.randrange(1, 1 << 31)
            process = fuzzing.start(self._program, corpus, seed, fuzzing.BUILD / "found", store, log, seconds=seconds)
            while process.poll() is None:
                if self.over.wait(0.2) and process.poll() is None:
                    process.send_signal(signal.SIGINT)  # it says what it ran, and ends
                    process.wait()
            failed = process.returncode not in (0, _INTERRUPTED)
            self._count(fuzzing.said(log), (time.monotonic() - began) / 3600, failed)
            shutil.rmtree(store, ignore_errors=True)

    def _count(self, text: str, hours: float, failed: bool) -> None:
        with self._lock:
            more = Count(fuzzing.new_inputs(text), hours, int(failed))
            total = record(self._results, self._core, more)
            self.inputs += more.inputs
            self.failures += more.failures
            left = max(0.0, self._end - time.monotonic()) / 60
            print(
                f"{more.inputs:9,} damaged stores, {more.inputs / hours / 3600:.0f} a second; {total.inputs:,} in all parts, "
                f"{total.failures} failures; {left:.0f} min left",
                flush=True,
            )
        if failed:
            print(fuzzing.failure(self._program, text), flush=True)
            self.over.set()


def main(arguments: list[str]) -> int:
    """Run until the time is over; 1 if the core failed."""
    parser = argparse.ArgumentParser(description="Damaged stores, for hours; counted in docs/results.md")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes beside one another")
    parser.add_argument("--results", type=Path, default=fuzzing.ROOT / "docs" / "results.md")
    options = parser.parse_args(arguments)
    if options.jobs < 1 or not options.hours > 0:
        parser.error("--jobs must be 1 or more, and --hours more than 0")
    if not fuzzing.has_libfuzzer():
        parser.error("clang with libFuzzer is needed: apt-get install clang")
    campaign = Campaign(options.results, options.hours)
    print(
        f"{options.jobs} processes for {options.hours:.2f} hours; Ctrl-C ends them, and what was run counts", flush=True
    )
    with fuzzing.stores() as memory:
        workers = [threading.Thread(target=campaign.work, args=(job, memory)) for job in range(options.jobs)]
        for worker in workers:
            worker.start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: campaign.over.set())
        for worker in workers:
            worker.join()
    print(f"{campaign.inputs:,} damaged stores, {campaign.failures} failures; counted in {options.results}")
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
