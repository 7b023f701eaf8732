"""gismo litmus: does the hardware do what gismo assumes of it?"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click

import gismo_core
from gismo_core.cli import exits
from gismo_core.cli.options import Seconds, host_options, json_option, open_store, store_argument
from gismo_core.cli.output import show_json, show_table
from gismo_core.errors import GismoError, PartnerLost
from gismo_core.litmus import EMULATED_LIMIT_S, ROUNDS, SILENCE_S, Plan, Report, run
from gismo_core.records import LITMUS_TESTS
from gismo_core.store import Store

_DAY_S = 86400.0
_PARTNER_ENDS_S = 2 * SILENCE_S


@click.command("litmus", epilog=exits.HELP)
@store_argument
@click.option("--alone", is_flag=True, help="Run both sides here, as two hosts: tests the tests, not the hardware.")
@click.option("--rounds", type=click.IntRange(1, 2**50), default=ROUNDS, show_default=True, help="Of each test.")
@click.option(
    "--seconds",
    type=Seconds(0.001, _DAY_S),
    help=f"End each test after as long. Default: no limit; {EMULATED_LIMIT_S:g} s where the outcome means nothing.",
)
@click.option(
    "--only", metavar="NAME", multiple=True, type=click.Choice(LITMUS_TESTS), help=", ".join(LITMUS_TESTS) + "."
)
@click.option("--wait", "wait_s", type=Seconds(0, _DAY_S), default=300, show_default=True, help="For the other host.")
@click.option(
    "--session", metavar="NAME", default="", help="Meet only who gives the same: for several pairs at a time."
)
@click.option("--flawed", is_flag=True, hidden=True, help="This side does what the assumptions rule out.")
@host_options
@json_option
def litmus_command(
    store: str,
    alone: bool,
    rounds: int,
    seconds: float | None,
    only: tuple[str, ...],
    wait_s: float,
    session: str,
    flawed: bool,
    host_id: int | None,
    state_dir: str | None,
    as_json: bool,
) -> int:
    """Test what is assumed of the hardware (A1 to A3): run it on two hosts at the same time.

    Each writes into an object of its own, and reads the other's. What was found stands in the store, and `gismo doctor STORE`, `gismo info` and
    `gismo hosts` show it. Where one machine is both sides, or the store is a file, it is `not meaningful: emulated`. --rounds, --seconds and
    --only are those of the host with the lower id. Ends with 1 if an assumption does not hold.
    """
    if len(session) > 100 or not session.isprintable():
        raise click.UsageError("--session is a name of at most 100 printable characters")
    plan = Plan(rounds, seconds, tuple(name for name in LITMUS_TESTS if name in only) or LITMUS_TESTS)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ended_in_order())
        if alone:
            if host_id is not None or state_dir is not None or session:
                raise click.UsageError(
                    "--alone makes two hosts of its own: leave --host-id, --state-dir and --session out"
                )
            pair = stack.enter_context(_both_sides(store, wait_s, flawed))
            opened, session, partner_lives = pair.store, pair.session, pair.check
        else:
            opened = stack.enter_context(open_store(store, host_id=host_id, state_dir=state_dir))
            partner_lives = None
        watcher = stack.enter_context(_watcher(wanted=not as_json, partner_lives=partner_lives))
        report = run(opened, session=session, plan=plan, wait_s=wait_s, watcher=watcher, flawed=flawed)
    if as_json:
        show_json(_document(report))
    else:
        _show(store, report)
    return exits.ERROR if report.violated else exits.OK


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM is as Ctrl-C: else a lane would stay taken by nobody."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _document(report: Report) -> dict[str, object]:
    verdict = report.verdict
    return {
        "verdict": str(verdict),
        "outcome": verdict.outcome,
        "emulated": verdict.emulated,
        "host_id": report.host_id,
        "partner_host": verdict.partner_host,
        "partner_boot_id": verdict.partner_boot_id,
        "tested_unix_ns": verdict.tested_unix_ns,
        "tests": report.tests,
        "recorded": report.recorded,
    }


def _show(store: str, report: Report) -> None:
    show_table(
        ("test", ">rounds", ">violations", ">contended", ">ns a round"),
        [
            (
                one.name,
                f"{one.rounds:,}",
                f"{one.violations:,}",
                f"{one.contended:,}",
                f"{one.seconds * 1e9 / one.rounds:.0f}" if one.rounds else "-",
            )
            for one in report.tests
        ],
    )
    verdict = report.verdict
    why = f" ({'; '.join(verdict.emulated)})" if verdict.emulated else ""
    click.echo(f"{store}: host {report.host_id} with host {verdict.partner_host}: {verdict}{why}")
    if not report.recorded:
        click.echo("what was found before, on real hardware, stands as it is: see `gismo hosts`")


# ---- progress --------------------------------------------------------------------------------------


class _Watch:
    """Passes on how far it is: `show(what, share)`, the share None while it is unknown."""

    def __init__(self, show: Callable[[str, float | None], None], partner_lives: Callable[[], None] | None) -> None:
        self._show = show
        self._partner_lives = partner_lives

    def waiting(self, seconds: float) -> None:
        if self._partner_lives is not None:
            self._partner_lives()
            self._show("starting the other side", None)
        else:
            self._show(f"waiting for `gismo litmus` on another host, {seconds:.0f} s", None)

    def testing(self, name: str, share: float) -> None:
        if self._partner_lives is not None:
            self._partner_lives()
        self._show(name, share)


@contextlib.contextmanager
def _watcher(*, wanted: bool, partner_lives: Callable[[], None] | None) -> Iterator[_Watch]:
    if not wanted or not sys.stderr.isatty():
        yield _Watch(lambda what, share: None, partner_lives)
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    except ImportError:
        yield _Watch(_plainly, partner_lives)
        click.echo("", err=True)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {name: bar.add_task(name, total=None, start=False) for name in ("gismo litmus",)}

        def show(what: str, share: float | None) -> None:
            if share is None:
                bar.update(tasks["gismo litmus"], description=what)
                return
            if what not in tasks:
                for name, task in tasks.items():  # those before are done
                    bar.update(task, total=1.0, completed=1.0, visible=name != "gismo litmus")
                tasks[what] = bar.add_task(what, total=1.0)
            bar.update(tasks[what], completed=share)

        yield _Watch(show, partner_lives)


def _plainly(what: str, share: float | None) -> None:
    text = what if share is None else f"{what} {100 * share:3.0f} %"
    click.echo(f"\r{text:<60}", nl=False, err=True)


# ---- both sides here -------------------------------------------------------------------------------


class _Pair:
    """Our own side as a host of its own, and the other as a process that is one, too."""

    def __init__(self, store: Store, session: str, partner: subprocess.Popen[str]) -> None:
        self.store = store
        self.session = session
        self.partner = partner

    def check(self) -> None:
        """PartnerLost, with what it said, if the other process has ended."""
        if self.partner.poll() is not None:
            _, said = self.partner.communicate()
            raise PartnerLost(f"the other side ended with {self.partner.returncode}: {_message(said)}")


@contextlib.contextmanager
def _both_sides(path: str, wait_s: float, flawed: bool) -> Iterator[_Pair]:
    """Two hosts with state directories of their own, which leave their lanes again."""
    gismo_core.probe(path)  # what is no store needs no partner to be told
    folder = Path(tempfile.mkdtemp(prefix="gismo-litmus-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        with _without_host_id(), open_store(path, state_dir=str(folder / "0")) as opened:
            session = folder.name
            words = ["--session", session, "--state-dir", str(folder / "1"), "--wait", str(wait_s)]
            partner = _start_partner([path, *words, *(["--flawed"] if flawed else [])])
            try:
                yield _Pair(opened, session, partner)
            finally:
                _end_partner(partner, path, folder / "1")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _without_host_id() -> Iterator[None]:
    """Of two hosts only one could have $GISMO_HOST_ID."""
    given = os.environ.pop("GISMO_HOST_ID", None)
    try:
        yield
    finally:
        if given is not None:
            os.environ["GISMO_HOST_ID"] = given


def _start_partner(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gismo_core", "litmus", "--json", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _end_partner(partner: subprocess.Popen[str], path: str, state_dir: Path) -> None:
    """It ends by itself soon after our side has; if it was killed, its lane is left for it."""
    if partner.poll() is None and sys.exc_info()[0] is not None:
        partner.send_signal(signal.SIGINT)
    try:
        partner.communicate(timeout=_PARTNER_ENDS_S)
    except subprocess.TimeoutExpired:
        partner.kill()
        partner.communicate()
    if partner.returncode < 0:
        with contextlib.suppress(GismoError), open_store(path, state_dir=str(state_dir)) as left:
            for one in left.objects():
                if one.name is not None and one.name.startswith("gismo.litmus.") and one.handle.lane == left.host_id:
                    left.delete(one.handle)


def _message(said: str) -> str:
    """Of an error as --json tells it."""
    try:
        return str(json.loads(said)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return said.strip() or "it said nothing"
