"""Scenarios again and again with random seeds; every run is counted in docs/results.md. Behind `make test-ray-long`.

python -m ray_scenarios.long --hours 1 --jobs 1 --scenario all|NAME|NAME/KILL [--results PATH] [--logs FOLDER]

Several clusters beside one another (--jobs) make more runs of the same hour where there are processors for them: each
starts Ray workers all the time, and two processors are busy with three clusters.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time
from pathlib import Path

from ray_scenarios import counts, served, table, talk
from ray_scenarios.outcome import Outcome

_ENOUGH = 50


def chosen(text: str) -> list[counts.Key]:
    """(scenario, kill) for "all", a name, or a name and a kill; SystemExit if there is none of that name."""
    name, _, kill = text.partition("/")
    pairs = [
        (one.name, each)
        for one in table.scenarios().values()
        for each in one.kills
        if name in ("all", one.name) and (not kill or kill == (each or "nobody"))
    ]
    if not pairs:
        raise SystemExit(f"there is no scenario {text!r}; there are all, " + ", ".join(sorted(table.scenarios())))
    return pairs


class Rota:
    """What is run next: of those with the fewest runs, so that all reach the number that is claimed. Used by threads."""

    def __init__(self, pairs: list[counts.Key], results: Path, end: float) -> None:
        self._pairs = pairs
        self._results = results
        self._end = end
        self._lock = threading.Lock()
        self._begun = dict.fromkeys(pairs, 0)
        for pair, count in counts.read(results.read_text()).items():
            if pair in self._begun:
                self._begun[pair] = count.runs
        self.total = self.bad = 0
        self.over = threading.Event()

    def next(self) -> counts.Key | None:
        """None when the time is over."""
        with self._lock:
            if self.over.is_set() or time.monotonic() >= self._end:
                return None
            pair = min(self._pairs, key=lambda one: (self._begun[one], random.random()))
            self._begun[pair] += 1
            return pair

    def failed(self) -> None:
        """Something that is not a run's own went wrong: end, and say so by the exit code."""
        with self._lock:
            self.bad += 1
        self.over.set()

    def done(self, outcome: Outcome) -> None:
        """Count it, and say so."""
        with self._lock:
            count = counts.record(self._results, outcome)
            self.total += 1
            self.bad += not outcome.good
            print(
                f"{self.total:5d}  {'good' if outcome.good else 'BAD '}  {outcome.scenario}, {outcome.kill or 'nobody'} killed, "
                f"seed {outcome.seed}: {outcome.wall_s:.1f} s; row {count.runs} of {_ENOUGH} runs, {count.lost} lost, "
                f"{count.leaked} leaked; {max(0.0, self._end - time.monotonic()) / 60:.0f} min left",
                flush=True,
            )
            notes = [] if outcome.good else outcome.notes  # of a leak: what holds it, and how the keeper stood
            for text in [*outcome.lost[:5], *([outcome.broken] if outcome.broken else []), *notes]:
                print(f"       {text}", flush=True)


def work(rota: Rota, logs: Path) -> None:
    """Clusters of one's own, and one run after the other on them."""
    scenarios = table.scenarios()
    clusters = served.Served(logs)
    try:
        while (pair := rota.next()) is not None:
            name, kill = pair
            rota.done(clusters.run(scenarios[name], kill, random.randrange(1 << 40)))
    except BaseException:
        rota.failed()
        raise
    finally:
        clusters.end()


def main(arguments: list[str]) -> int:
    """Run until the time is over; 1 if anything was lost or leaked, or a run proved nothing."""
    parser = argparse.ArgumentParser(description="Scenarios of freeing, again and again")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument(
        "--jobs", type=int, default=1, help="clusters of two nodes beside one another; each takes about 2 GiB"
    )
    parser.add_argument("--scenario", default="all")
    parser.add_argument("--results", type=Path, default=talk.TESTS.parent / "docs" / "results.md")
    parser.add_argument("--logs", type=Path, default=talk.TESTS.parent / "build" / "ray-long")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error("--jobs must be 1 or more")
    pairs = chosen(options.scenario)
    options.logs.mkdir(parents=True, exist_ok=True)
    rota = Rota(pairs, options.results, time.monotonic() + options.hours * 3600)
    workers = [threading.Thread(target=work, args=(rota, options.logs)) for _ in range(options.jobs)]
    for worker in workers:
        worker.start()

    def stop(*_: object) -> None:
        print("stopping; the runs that are under way are waited for", flush=True)
        rota.over.set()

    # Not by KeyboardInterrupt: in a join() it leaves the thread marked as ended, and then nobody waits for it.
    signal.signal(signal.SIGINT, stop)
    for worker in workers:
        worker.join()
    print(f"{rota.total} runs, {rota.bad} not good; counted in {options.results}, logs of bad runs in {options.logs}")
    return 1 if rota.bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
