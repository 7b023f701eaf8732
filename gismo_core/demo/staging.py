"""What every demo stands on: a directory that goes, a time when it is given up, signals that clean up."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from gismo_core.demo.plan import SHM
from gismo_core.demo.report import DemoError


def next_command() -> str:
    """To type now, as it works here."""
    beside = Path(sys.executable).with_name("gismo")
    if shutil.which("gismo"):
        command = "gismo"
    elif beside.exists():
        command = shlex.quote(os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside))
    else:
        command = f"{shlex.quote(sys.executable)} -m gismo_core"
    return f"{command} format --size 1GiB {SHM}/pool && {command} put {SHM}/pool README.md --name readme && {command} ls {SHM}/pool"


@contextlib.contextmanager
def work_directory() -> Iterator[Path]:
    """On tmpfs, gone afterwards."""
    work = Path(tempfile.mkdtemp(prefix=f"gismo-demo-{os.getpid()}-", dir=SHM))
    try:
        yield work
    finally:
        shutil.rmtree(work)


@contextlib.contextmanager
def endings_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP clean up as Ctrl-C does; and no GISMO_HOST_ID of the caller's makes all hosts one."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    host_id = os.environ.pop("GISMO_HOST_ID", None)
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if host_id is not None:
            os.environ["GISMO_HOST_ID"] = host_id


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """DemoError in whatever is under way when the time is over."""

    def give_up(_: int, __: FrameType | None) -> None:
        raise DemoError(f"not done after {seconds:.0f} s: the machine is too busy, or something hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
