"""The whole demo: a store in a temporary directory on /dev/shm, the acts one after the other, nothing left behind."""

from __future__ import annotations

import time
from pathlib import Path

import gismo_core
from gismo_core import GismoError
from gismo_core.bench import machine
from gismo_core.bench.clib import NativeError
from gismo_core.bench.medium import Medium
from gismo_core.cli.output import plain, size_text
from gismo_core.demo import cycle, deaths, ending, fleet, onecopy, traffic
from gismo_core.demo.content import Content
from gismo_core.demo.plan import Plan
from gismo_core.demo.report import DemoError, Report
from gismo_core.demo.screen import Screen
from gismo_core.demo.stage import Stage
from gismo_core.demo.staging import deadline, endings_as_interrupts, next_command, work_directory

_MAX_HOSTS = 8


def run(plan: Plan, screen: Screen) -> Report:
    """Play all; what failed is in the report, and KeyboardInterrupt comes out once everything is cleaned up."""
    report = Report()
    begin_s = time.monotonic()
    try:
        with deadline(plan.limit_s), endings_as_interrupts(), work_directory() as work:
            _play(Stage(plan, Content.make(plan.largest_bytes, plan.seed), report, screen), work)
    except (DemoError, GismoError, NativeError, OSError) as error:
        report.error = str(error) if isinstance(error, DemoError) else f"{type(error).__name__}: {error}"
    report.figures["seconds"] = time.monotonic() - begin_s
    _sum_up(report, screen)
    return report


def _play(stage: Stage, work: Path) -> None:
    plan, screen = stage.plan, stage.screen
    path = work / "store"
    about = machine.describe(Medium("directory", work, work), quick=False)
    stage.report.figures["machine"] = about
    screen.say(
        f"gismo {gismo_core.__version__} on {about['cpu']}, {about['cores']} cores, "
        f"{size_text(about['memory_bytes'])}, Linux {about['kernel']}, Python {about['python']}"
    )
    screen.act(f"Format a store of {size_text(plan.store_bytes)} in {work}")
    begin_s = time.monotonic()
    with screen.progress("formatting", plan.store_bytes) as update:
        info = gismo_core.format(
            path, size=plan.store_bytes, max_hosts=_MAX_HOSTS, progress=lambda done, total: update(done)
        )
    seconds = time.monotonic() - begin_s
    stage.note("format", seconds=seconds, size_bytes=plan.store_bytes, info=plain(info))
    screen.say(f"   {seconds:.1f} s, every page touched: {size_text(info.data_bytes)} for objects")
    with fleet.start(plan, path, work) as hosts:
        empty_bytes = hosts.used_bytes()
        stage.note("hosts", count=len(hosts.hosts), lanes=[host.lane for host in hosts.hosts])
        stage.expect(
            "every host has a lane of its own",
            len({host.lane for host in hosts.hosts}) == plan.hosts,
            "lanes " + ", ".join(str(host.lane) for host in hosts.hosts),
        )
        traffic.play(stage, hosts)
        onecopy.play(stage, hosts)
        deaths.play(stage, hosts)
        ending.play(stage, hosts, empty_bytes)
        hosts.end_workers()
        cycle.play(stage, path, hosts.hosts[0].state_dir, hosts.hosts[0].store)


def _sum_up(report: Report, screen: Screen) -> None:
    if report.lines:
        screen.act("Summary, all measured in this run")
        screen.table(("what", "measured"), report.lines)
    for check in report.failed:
        screen.check(check)
    if report.error is None and not report.failed:
        screen.say(f"   all {len(report.checks)} expectations held, {report.figures['seconds']:.1f} s")
        screen.say(f"\nNext: {next_command()}")
