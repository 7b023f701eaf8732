"""``gismo bench``: the command line of the benchmarks."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click  # noqa: TID253 - this module is a command line

from gismo_core.bench import catalog, machine, table
from gismo_core.bench.clib import MissingLibraryError, NativeError, native
from gismo_core.bench.group import Group
from gismo_core.bench.medium import Medium, RefusedError, parse_store, refuse_if_used
from gismo_core.bench.runner import Report, run, work_directory


@click.group()
def bench() -> None:
    """Measure the store, and Ray on it, on this machine."""


@bench.command()
@click.option("--only", metavar="PATTERN", help="Rows whose name matches (wildcards), or contains this.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--store",
    "store_spec",
    metavar="STORE",
    help="Measure on file:PATH, dax:PATH or in a directory (a tmpfs with huge pages, say). Default: /dev/shm.",
)
@click.option("--destroy", is_flag=True, help="Overwrite what --store holds. It is lost then.")
@click.option("--quick", is_flag=True, help="Small sizes and counts: to see that it runs, not how fast.")
@click.option("--samples", default=7, show_default=True, type=click.IntRange(min=5), help="Samples of each figure.")
@click.option("--list", "list_rows", is_flag=True, help="Say what the rows measure, and measure nothing.")
def store(
    only: str | None,
    as_json: bool,
    store_spec: str | None,
    destroy: bool,
    quick: bool,
    samples: int,
    list_rows: bool,
) -> None:
    """Measure puts, gets, small objects, recovery and opening, against what the machine and other stores can do.

    Each figure is the median of its samples; what it is compared with is measured by turns in the same run.

    \b
    Exit status: 0 all rows that could run gave a figure, 1 a row failed, 2 wrong usage or a medium that is in use,
    130 interrupted: the rows measured until then are printed.
    """
    _measure("store", catalog.GROUPS, only, as_json, store_spec, destroy, quick, samples, list_rows)


@bench.command()
@click.option("--only", metavar="PATTERN", help="Rows whose name matches (wildcards), or contains this.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quick", is_flag=True, help="Small sizes and counts: to see that it runs, not how fast.")
@click.option("--samples", default=7, show_default=True, type=click.IntRange(min=5), help="Samples of each figure.")
@click.option("--list", "list_rows", is_flag=True, help="Say what the rows measure, and measure nothing.")
def ray(only: str | None, as_json: bool, quick: bool, samples: int, list_rows: bool) -> None:
    """Measure Ray with Gismo against stock Ray: the same work in two clusters of the same shape on this machine.

    Both are asked by turns in the same run; stock Ray has its memory allocated beforehand. The clusters, the pool and
    all files are this command's own and are gone afterwards. Takes up to 12 GiB of memory and most of an hour.

    \b
    Exit status: 0 all rows that could run gave a figure, 1 a row failed, 2 wrong usage, 130 interrupted: the rows
    measured until then are printed.
    """
    _measure("ray", catalog.RAY_GROUPS, only, as_json, None, False, quick, samples, list_rows)


def _measure(
    name: str,
    groups: Sequence[Group],
    only: str | None,
    as_json: bool,
    store_spec: str | None,
    destroy: bool,
    quick: bool,
    samples: int,
    list_rows: bool,
) -> None:
    selection = list(catalog.select(only, groups))
    if not selection:
        raise click.UsageError(f"no row matches {only!r}; `gismo bench {name} --list` names them")
    if list_rows:
        rows = [row for group, wanted in selection for row in group.rows if row.name in wanted]
        if as_json:
            click.echo(json.dumps([{"name": row.name, "unit": row.unit, "what": row.what} for row in rows]))
            return
        for row in rows:
            click.echo(f"{row.name} [{row.unit}]  {row.what}")
        return
    report, interrupted = Report(), False
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(work_directory())
        try:
            medium = choose(store_spec, work, destroy=destroy)
            if medium.kind == "directory" and medium.path != work:
                # In one of our own: what the user has there is not ours to touch, whatever it is called.
                medium = replace(medium, path=stack.enter_context(work_directory(medium.path)))
        except (RefusedError, NativeError, OSError) as error:
            raise click.UsageError(str(error)) from error
        except MissingLibraryError as error:
            raise click.ClickException(str(error)) from error
        about = machine.describe(medium, quick=quick)
        try:
            for part in run(selection, medium, quick=quick, samples=samples):
                report.extend(part)
        except KeyboardInterrupt:  # or SIGTERM: what was measured until now took long
            interrupted = True
            click.echo("interrupted: the rows that were measured until now follow", err=True)
    if as_json:
        click.echo(json.dumps(as_document(about, report), indent=1))
    else:
        for line in table.lines(about, report):
            click.echo(line)
    if interrupted:
        sys.exit(130)
    if report.failed:
        sys.exit(1)


def as_document(about: dict[str, object], report: Report) -> dict[str, object]:
    """The JSON form; ``baselines`` holds the samples of all that a row was compared with,
    ``details`` what else was measured, ``intervals`` the 95 % intervals of the ratios that are judged by them,
    ``foreign_cpu`` the share of the cores that other processes took while it was measured."""
    return {
        "machine": about,
        "results": [result.as_json() for result in report.results],
        "skipped": report.skipped,
        "failed": report.failed,
        "foreign_cpu": report.foreign,
        "details": {result.row.name: result.details for result in report.results if result.details},
        "intervals": {result.row.name: result.interval for result in report.results if result.interval is not None},
        "baselines": {result.row.name: result.baselines for result in report.results if result.baselines},
    }


def choose(store_spec: str | None, work: Path, *, destroy: bool) -> Medium:
    """Where to measure; refuses what is in use."""
    library = native()
    if store_spec is None:
        return Medium("directory", work, work)
    kind, path = parse_store(store_spec)
    if not destroy:
        refuse_if_used(kind, path, library.probe)
    return Medium(kind, path, work, keep=kind == "file" and path.exists())
