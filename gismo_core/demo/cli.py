"""``gismo demo``: the command line of the demos."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click  # noqa: TID253 - this module is a command line

from gismo_core.cli.options import Seconds
from gismo_core.demo import plan as store_plan
from gismo_core.demo import show as store_show
from gismo_core.demo.plan import DEFAULT_SECONDS, MOST_SECONDS
from gismo_core.demo.report import DemoError, Report
from gismo_core.demo.screen import make_screen
from gismo_core.demo.versus import plan as versus_plan
from gismo_core.demo.versus import show as versus_show

_RAY_NEEDS = ("ray", "numpy", "pyarrow", "pandas")


@click.command("demo")
@click.argument("what", type=click.Choice(["ray", "store"]), default="ray")
@click.option(
    "--seconds",
    type=Seconds(1, MOST_SECONDS),
    default=DEFAULT_SECONDS,
    show_default=True,
    help="store: about how long; some seconds come on top. Below 10: with a small store.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("gismo-demo.svg"),
    show_default=True,
    help="ray: where to draw the comparison.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, at the end.")
def demo(what: str, seconds: float, plot: Path, as_json: bool) -> int:
    """Show Ray with Gismo beside stock Ray (ray), or the store alone (store).

    \b
    ray    two local clusters of 4 nodes, one after the other: gets, a broadcast, a shuffle, a Ray Data sort, a
           pipeline of actors, on stock Ray and with Gismo; then a node is killed in the middle of a job.
           Some minutes, up to 11 GiB of memory. Leaves the picture behind (--plot), nothing else.
    store  writers and readers of three hosts on one store, one killed, one frozen. Half a minute, up to 2 GiB of
           /dev/shm. Leaves nothing behind.

    \b
    Exit status: 0 all that had to hold held, 1 something did not (it is named), 2 wrong usage, 130 interrupted.
    """
    try:
        report = _ray(plot, as_json) if what == "ray" else _store(seconds, as_json)
    except DemoError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(report.document(), indent=1))
    if report.error is not None:
        click.echo(f"gismo demo: {report.error}", err=True)
    for check in report.failed:
        click.echo(f"gismo demo: FAILED: {check.what}: {check.found}", err=True)
    return 0 if report.ok else 1


def _ray(plot: Path, as_json: bool) -> Report:
    missing = [name for name in _RAY_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(
            f"Ray side by side needs {', '.join(missing)}: pip install 'ray[default,data]'; "
            "`gismo demo store` shows the store alone"
        )
    return versus_show.run(versus_plan.make_plan(), make_screen(silent=as_json), plot)


def _store(seconds: float, as_json: bool) -> Report:
    return store_show.run(store_plan.make_plan(seconds), make_screen(silent=as_json))


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m gismo_core.demo``: the exit code."""
    from gismo_core.cli import main as gismo

    return gismo(["demo", *(sys.argv[1:] if arguments is None else arguments)])
