"""``gismo demo``: the command line of the demo."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click  # noqa: TID253 - this module is a command line

from gismo_core.demo import show
from gismo_core.demo.plan import DEFAULT_SECONDS, MOST_SECONDS, make_plan
from gismo_core.demo.report import DemoError
from gismo_core.demo.screen import make_screen


@click.command("demo")
@click.option(
    "--seconds",
    type=click.FloatRange(1, MOST_SECONDS),
    default=DEFAULT_SECONDS,
    show_default=True,
    help="About how long; some seconds come on top. Below 10: with a small store.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, at the end.")
def demo(seconds: float, as_json: bool) -> int:
    """Show writers and readers of three hosts on one store; one is killed, one frozen.

    Needs up to 2 GiB of /dev/shm and leaves nothing there.

    \b
    Exit status: 0 all that had to hold held, 1 something did not (it is named), 2 wrong usage, 130 interrupted.
    """
    try:
        plan = make_plan(seconds)
    except DemoError as error:
        raise click.ClickException(str(error)) from error
    report = show.run(plan, make_screen(silent=as_json))
    if as_json:
        click.echo(json.dumps(report.document(), indent=1))
    if report.error is not None:
        click.echo(f"gismo demo: {report.error}", err=True)
    for check in report.failed:
        click.echo(f"gismo demo: FAILED: {check.what}: {check.found}", err=True)
    return 0 if report.ok else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m gismo_core.demo``: the exit code."""
    from gismo_core.cli import main as gismo

    return gismo(["demo", *(sys.argv[1:] if arguments is None else arguments)])
