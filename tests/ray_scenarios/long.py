"""Scenarios again and again with random seeds; every run is counted in docs/results.md. Behind `make test-ray-long`.

python -m ray_scenarios.long --hours 1 --scenario all|NAME|NAME/KILL [--results PATH] [--logs FOLDER]
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

from ray_scenarios import counts, served, table, talk

_ENOUGH = 50


def chosen(text: str) -> list[tuple[str, str]]:
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


def main(arguments: list[str]) -> int:
    """Run until the time is over; 1 if anything was lost or leaked, or a run proved nothing."""
    parser = argparse.ArgumentParser(description="Scenarios of freeing, again and again")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--scenario", default="all")
    parser.add_argument("--results", type=Path, default=talk.TESTS.parent / "docs" / "results.md")
    parser.add_argument("--logs", type=Path, default=talk.TESTS.parent / "build" / "ray-long")
    options = parser.parse_args(arguments)
    pairs = chosen(options.scenario)
    options.logs.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + options.hours * 3600
    clusters = served.Served(options.logs)
    scenarios = table.scenarios()
    bad = total = 0
    try:
        while time.monotonic() < end:
            # The fewest runs first, so that all of them reach the number that is claimed.
            known = counts.read(options.results.read_text())
            pairs.sort(key=lambda pair: (known[pair].runs if pair in known else 0, random.random()))
            for name, kill in pairs[: max(1, len(pairs) // 4)]:
                if time.monotonic() >= end:
                    break
                outcome = clusters.run(scenarios[name], kill, random.randrange(1 << 40))
                count = counts.record(options.results, outcome)
                total += 1
                bad += not outcome.good
                left_min = (end - time.monotonic()) / 60
                print(
                    f"{total:5d}  {'good' if outcome.good else 'BAD '}  {name}, {kill or 'nobody'} killed, seed {outcome.seed}: "
                    f"{outcome.wall_s:.1f} s; row {count.runs} of {_ENOUGH} runs, {count.lost} lost, "
                    f"{count.leaked} leaked; {left_min:.0f} min left",
                    flush=True,
                )
                for text in [*outcome.lost[:5], *([outcome.broken] if outcome.broken else [])]:
                    print(f"       {text}", flush=True)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    finally:
        clusters.end()
    print(f"{total} runs, {bad} not good; counted in {options.results}, logs of bad runs in {options.logs}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
