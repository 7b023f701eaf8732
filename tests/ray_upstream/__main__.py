"""Ray's own test files, with stock Ray and with Gismo: do they come to the same? Behind `make test-ray-upstream`.

python -m ray_upstream PATH… [--only EXPRESSION] [--apart TEST] [--pool-size BYTES] [--json] [--with PACKAGE]

The files stay where they are, in a checkout of Ray. Ends with 0 when all is the same (flaky tests are named), 1 when a
test really differs, 2 when a file could not be run or nothing went into the store.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ray_upstream import compare, environment, outcomes, report, side, sources
from ray_upstream.report import FileReport
from ray_upstream.sources import Source

_ROOT = Path(__file__).resolve().parents[2]
_AGAIN = 2  # so that a test which differs runs three times on each side
# Gismo's own small objects (the presence of a cluster) are no proof that a value was stored.
_PROOF_BYTES = 100 * 1024


def judge(source: Source, settings: side.Settings) -> FileReport:
    """Run one file on both sides, and again what differs."""
    runs: dict[bool, list[side.Ran]] = {False: [], True: []}
    for gismo in (False, True):
        ran = _said(source, settings, gismo)
        apart = _alone(source, settings, gismo, settings.apart, "apart")
        runs[gismo].append(dataclasses.replace(ran, outcomes={**ran.outcomes, **apart}))
    cut_off = any(ran.cut_off for ran in (*runs[False], *runs[True]))
    off, on = ([one.outcomes for one in runs[gismo]] for gismo in (False, True))
    for number in range(1, _AGAIN + 1):
        again = compare.to_run_again(off, on, cut_off=cut_off)
        if not again:
            break
        for gismo, results in ((False, off), (True, on)):
            alone = _alone(source, settings, gismo, again, f"again-{number}")
            results.append({**dict.fromkeys(again, compare.NOT_RUN), **alone})
    first = runs[True][0]
    tests = tuple(compare.compare(off, on, cut_off=cut_off))
    why = "" if tests else _why(runs[False][0], settings)
    return FileReport(source.name, tests, first.stored_objects, first.stored_bytes, why, cut_off)


def _said(source: Source, settings: side.Settings, gismo: bool, test: str = "", label: str = "") -> side.Ran:
    what = f"{source.name}, {'with Gismo' if gismo else 'stock Ray'}{f', {label}: {test}' if test else ''}"
    print(f"  {what} …", file=sys.stderr, flush=True)
    ran = side.run(source, settings, gismo=gismo, tests=[test] if test else (), label=f"-{label}" if label else "")
    counts = Counter(one.what for one in ran.outcomes.values())
    text = ", ".join(f"{number} {what}" for what, number in sorted(counts.items())) or "no test"
    print(f"    {text} in {ran.wall_s:.0f} s", file=sys.stderr, flush=True)
    return ran


def _alone(
    source: Source, settings: side.Settings, gismo: bool, tests: Sequence[str], label: str
) -> dict[str, outcomes.Outcome]:
    """Each test in a process of its own: what another one left behind in its process is no difference of this one."""
    found: dict[str, outcomes.Outcome] = {}
    for index, test in enumerate(tests):
        found |= _said(source, settings, gismo, test, f"{label}-{index}").outcomes  # several where it has parameters
    return found


def _why(ran: side.Ran, settings: side.Settings) -> str:
    missing = outcomes.missing_packages(ran.outcomes, ran.log)
    if missing:
        return f"it needs {', '.join(missing)}; add --with PACKAGE for each"
    return f"see the logs in {settings.logs}; the last lines are: " + " / ".join(ran.log.strip().splitlines()[-3:])


def main(arguments: list[str]) -> int:
    """See the module's words."""
    parser = argparse.ArgumentParser(prog="ray_upstream", description="Ray's own tests, with Gismo on and off")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--only", default="", help="an expression, as pytest's -k")
    parser.add_argument(
        "--apart", action="append", default=[], metavar="TEST",
        help="run that test in a process of its own: what it leaves in one when it fails would fail others",
    )  # fmt: skip
    parser.add_argument("--pool-size", type=int, default=1 << 30, help="bytes of the pool, in /dev/shm (1 GiB)")
    parser.add_argument("--timeout", type=int, default=180, help="seconds a test")
    parser.add_argument("--file-timeout", type=int, default=1800, help="seconds a file and side")
    parser.add_argument("--with", dest="more", action="append", default=[], metavar="PACKAGE", help="install that too")
    parser.add_argument("--source", default="a checkout of Ray", help="where the files are from, for the table")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument("--results", type=Path, default=_ROOT / "docs" / "results.md")
    parser.add_argument("--logs", type=Path, default=_ROOT / "build" / "ray-upstream")
    options = parser.parse_args(arguments)
    found = [sources.find(path) for path in options.paths]
    side.namespaces()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended on the way out
    options.logs.mkdir(parents=True, exist_ok=True)
    settings = side.Settings(
        environment.python(options.more), options.pool_size, options.timeout, options.file_timeout, options.only,
        tuple(options.apart), options.logs.resolve(),
    )  # fmt: skip
    version = importlib.metadata.version("ray")
    reports: list[FileReport] = []
    for number, source in enumerate(found, 1):
        print(f"{number} of {len(found)}: {source.name}", file=sys.stderr, flush=True)
        reports.append(judge(source, settings))
        if not options.json:
            print("\n".join(reports[-1].lines()), flush=True)
        if not options.only:  # a part of a file makes no row
            report.write_table(
                options.results, reports[-1:], ray=version, source=options.source,
                date=datetime.date.today().isoformat(),
            )  # fmt: skip
    nothing = sum(one.stored_bytes for one in reports) < _PROOF_BYTES
    if options.json:
        print(json.dumps({"ray": version, "source": options.source, "files": [one.as_json() for one in reports]}))
    if nothing:
        print("nothing went into the Gismo store: this proves nothing. Is the integration on? See the logs in "
              f"{options.logs}", file=sys.stderr)  # fmt: skip
    different = sum(one.count(compare.DIFFERENT) for one in reports)
    if different:
        return 1
    return 2 if nothing or any(one.uncollected for one in reports) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SystemExit as end:
        if not isinstance(end.code, str):
            raise
        print(end.code, file=sys.stderr)  # what was wrong with the call; 1 would mean that a test differs
        sys.exit(2)
