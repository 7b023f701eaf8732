"""The whole of it: stock Ray, then Ray with Gismo, then a node dies; nothing is left behind but the picture."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import gismo_core
from gismo_core import GismoError
from gismo_core.bench import machine
from gismo_core.bench.clib import NativeError
from gismo_core.bench.clusters import processes
from gismo_core.bench.clusters.side import GISMO, STOCK, Side
from gismo_core.bench.medium import Medium
from gismo_core.bench.worker import WorkerError
from gismo_core.cli.output import size_text
from gismo_core.demo.report import DemoError, Report
from gismo_core.demo.screen import Screen
from gismo_core.demo.staging import deadline, endings_as_interrupts, next_command, work_directory
from gismo_core.demo.versus import acts
from gismo_core.demo.versus.acts import Act, Took
from gismo_core.demo.versus.plan import SLOW_START_S, Plan, hurried
from gismo_core.demo.versus.plot import Bar, draw, seconds_text

_TABLES_BYTES = 16 << 20  # the pool's own, and Ray's small objects
COLUMNS = ("what", ">stock Ray", ">Gismo", ">ratio", ">CPU s", ">over the network", ">peak of all stores", ">spilled")


def run(plan: Plan, screen: Screen, plot: Path | None) -> Report:
    """Play all; what failed is in the report, and KeyboardInterrupt comes out once everything is cleaned up."""
    report = Report()
    begin_s = time.monotonic()
    try:
        with deadline(plan.limit_s), endings_as_interrupts(), work_directory() as work:
            _play(plan, screen, report, work, plot)
    except (DemoError, GismoError, NativeError, OSError, WorkerError) as error:
        report.error = str(error) if isinstance(error, (DemoError, WorkerError)) else f"{type(error).__name__}: {error}"
    report.figures["seconds"] = time.monotonic() - begin_s
    for check in report.failed:
        screen.check(check)
    if report.ok:
        screen.say(f"   all {len(report.checks)} expectations held, {report.figures['seconds']:.0f} s")
        screen.say(f"\nNext: {next_command()}")
    return report


def _play(plan: Plan, screen: Screen, report: Report, work: Path, plot: Path | None) -> None:
    about = machine.describe(Medium("directory", work, work), quick=False)
    report.figures["machine"] = about
    here = f"{about['cpu']}, {about['cores']} cores, {size_text(about['memory_bytes'])}, Linux {about['kernel']}"
    screen.say(f"gismo {gismo_core.__version__} on {here}, Python {about['python']}")
    shape = plan.shape
    screen.say(
        f"Two clusters, one after the other: {shape.nodes} nodes of {shape.cpus} CPU on this machine, each with a raylet "
        f"and {size_text(shape.plasma_bytes)} of plasma; each is done once, the longest ones by half, before it counts"
    )
    took: dict[str, dict[str, Took]] = {STOCK: {}, GISMO: {}}
    with ExitStack() as stack:
        screen.act("Stock Ray, its memory allocated beforehand")
        begin_s = time.monotonic()
        side = _start(stack, plan, screen, STOCK, work)
        if time.monotonic() - begin_s > SLOW_START_S:
            plan = hurried(plan)
            screen.say("   that is slow, memory mostly: so the long jobs are of half the size, and all count once")
        todo = acts.acts(plan)
        # The better of its two settings for these rows.
        side.ask("dataset.settings", compression="none")
        _play_all(side, todo, screen, took[STOCK])
    with ExitStack() as stack:
        screen.act("Ray with Gismo: the same, started with GISMO_STORE in the environment")
        side = _start(stack, plan, screen, GISMO, work)
        side.ask("dataset.settings", compression=None)
        _play_all(side, todo, screen, took[GISMO])
        _compare(plan, screen, report, todo, took)
        _draw(screen, report, todo, took, plot, here)
        _node_dies(side, screen, report)


def _start(stack: ExitStack, plan: Plan, screen: Screen, name: str, work: Path) -> Side:
    begin_s = time.monotonic()
    store, state_dir = "", None
    said = ""
    if name == GISMO:
        path = work / "pool"
        with screen.progress("formatting the pool", plan.shape.pool_bytes) as update:
            gismo_core.format(path, size=plan.shape.pool_bytes, progress=lambda done, total: update(done))
        stack.callback(path.unlink)
        store, state_dir = f"file:{path}", work / "state"
        state_dir.mkdir()
        said = f", a pool of {size_text(plan.shape.pool_bytes)}"
    side = Side(name, plan.shape, store=store, state_dir=state_dir)
    stack.callback(side.end)
    side.ready()
    count = len(processes.descendants(side.process.pid))
    screen.say(f"   up in {time.monotonic() - begin_s:.0f} s: {plan.shape.nodes} nodes, {count} processes{said}")
    return side


def _play_all(side: Side, todo: tuple[Act, ...], screen: Screen, took: dict[str, Took]) -> None:
    for act in todo:
        with screen.progress(act.title, act.warm_ups + act.repeats) as update:
            took[act.name] = acts.play(side, act, update)
        side.ask("transfer.release")  # the memory of its actors, before the next needs it
        found = took[act.name]
        screen.say(
            f"   {act.title}: {seconds_text(found.seconds)}, {found.cpu_s:.1f} CPU s, "
            f"{size_text(found.network_bytes)} over the network"
        )


def _compare(
    plan: Plan, screen: Screen, report: Report, todo: tuple[Act, ...], took: dict[str, dict[str, Took]]
) -> None:
    rows = []
    for act in todo:
        stock, gismo = took[STOCK][act.name], took[GISMO][act.name]
        rows.append(
            (
                act.title,
                seconds_text(stock.seconds),
                seconds_text(gismo.seconds),
                f"{stock.seconds / gismo.seconds:.3g}x",
                f"{stock.cpu_s:.1f} → {gismo.cpu_s:.1f}",
                f"{size_text(stock.network_bytes)} → {size_text(gismo.network_bytes)}",
                f"{size_text(stock.peak_bytes)} → {size_text(gismo.peak_bytes)}",
                f"{size_text(stock.spilled_bytes)} → {size_text(gismo.spilled_bytes)}",
            )
        )
        report.figures.setdefault("acts", {})[act.name] = {
            "title": act.title,
            "ratio": stock.seconds / gismo.seconds,
            "stock": asdict(stock),
            "gismo": asdict(gismo),
        }
    screen.act("Side by side (stock Ray → with Gismo)")
    screen.table(COLUMNS, rows)
    one = took[GISMO]["broadcast"]
    screen.check(
        report.expect(
            "one copy for all nodes: the pool and all plasma stores hold little more than the object",
            one.peak_bytes <= 1.1 * plan.object_bytes + _TABLES_BYTES,
            f"{size_text(one.peak_bytes)}; stock {size_text(took[STOCK]['broadcast'].peak_bytes)}",
        )
    )


def _draw(
    screen: Screen,
    report: Report,
    todo: tuple[Act, ...],
    took: dict[str, dict[str, Took]],
    plot: Path | None,
    here: str,
) -> None:
    if plot is None:
        return
    bars = [Bar(act.title, took[STOCK][act.name].seconds, took[GISMO][act.name].seconds) for act in todo]
    plot.write_text(draw(bars, "The same work on stock Ray and on Ray with Gismo", f"measured by gismo demo on {here}"))
    report.figures["plot"] = str(plot)
    screen.say(f"   as a picture: {plot}")


def _node_dies(side: Side, screen: Screen, report: Report) -> None:
    screen.act("A node is killed in the middle of a job")
    with screen.progress("the job", 1) as update:
        found = side.ask("dying.kill_a_node", objects=12, nbytes=16 << 20, tasks=24)
        update(1)
    report.figures["death"] = found
    screen.check(
        report.expect(
            f"SIGKILL to the node's raylet when {found['done_before']} of {found['tasks']} tasks were done: the job ends right",
            found["right"] == found["tasks"],
            f"{found['right']} results right, {found['seconds']:.1f} s",
        )
    )
    screen.check(
        report.expect(
            "what tasks of the dead node had returned is still there",
            found["still_there"] == found["objects"],
            f"{found['still_there']} of {found['objects']} objects, none made again",
        )
    )
    freed_s = side.ask("cluster.settle")
    screen.check(report.expect("everything is freed when the references are gone", True, f"{freed_s:.1f} s"))
