"""make bench-kubernetes: the speed of the Kubernetes parts, row by row, in the form of `gismo bench store`.

    python -m bench_kubernetes [--only PATTERN] [--json] [--samples N] [--list]

Exit status: 0 all rows that could be measured here gave a figure, 1 a row failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from bench_kubernetes import on_cluster, plugin
from bench_kubernetes.group import Group, NotToBeMeasured
from gismo_core.bench import catalog, machine, table
from gismo_core.bench.cli import as_document
from gismo_core.bench.medium import Medium
from gismo_core.bench.result import judge
from gismo_core.bench.runner import Report

GROUPS = (plugin.GROUP, *on_cluster.GROUPS)
_SHARED = Path("/dev/shm")


def measured(groups: Iterable[Group], only: str | None, samples: int) -> Report:
    """All groups, those on the cluster together at the end."""
    report = Report()
    chosen = list(groups)
    with contextlib.ExitStack() as stack:
        lacking = ""
        entered = False
        for number, group in enumerate(chosen, 1):
            names = [row.name for row in group.rows if catalog.matches(row.name, only)]
            print(f"[{number}/{len(chosen)}] {', '.join(names)}", file=sys.stderr, flush=True)
            try:
                if group.on_cluster and not entered and not lacking:
                    stack.enter_context(on_cluster.on_cluster())
                    entered = True
                if group.on_cluster and lacking:
                    raise NotToBeMeasured(lacking)
                figures = {one.name: one for one in group.measure(samples)}
            except NotToBeMeasured as error:
                lacking = str(error)
                report.skipped += [{"name": name, "why": lacking} for name in names]
            except Exception as error:  # noqa: BLE001 - the other rows are to be measured all the same
                report.failed += [{"name": name, "why": f"{type(error).__name__}: {error}"} for name in names]
            else:
                report.results += [judge(row, figures[row.name]) for row in group.rows if row.name in names]
    return report


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench_kubernetes", description="Speed of the Kubernetes parts")
    parser.add_argument("--only", metavar="PATTERN", help="rows whose name matches (wildcards), or contains this")
    parser.add_argument("--json", action="store_true", help="one JSON object, in the form of gismo bench store")
    parser.add_argument("--samples", type=int, default=9, help="of each figure (%(default)s; first_get: at most 3)")
    parser.add_argument("--list", action="store_true", help="say what the rows measure, and measure nothing")
    options = parser.parse_args(arguments)
    if options.samples < 2:
        parser.error("--samples must be 2 or more")
    chosen = [group for group in GROUPS if any(catalog.matches(row.name, options.only) for row in group.rows)]
    if not chosen:
        parser.error(f"no row matches {options.only!r}; --list names them")
    if options.list:
        for row in (row for group in chosen for row in group.rows if catalog.matches(row.name, options.only)):
            print(f"{row.name} [{row.unit}]  {row.what}")
        return 0
    report = measured(chosen, options.only, options.samples)
    about = machine.describe(Medium("directory", _SHARED, _SHARED), quick=False)
    if options.json:
        print(json.dumps(as_document(about, report), indent=1))
    else:
        print("\n".join(table.lines(about, report)))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
