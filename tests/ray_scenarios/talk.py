"""Calls from one process to another that it has started: a line of JSON each way.

Answers come over a pipe of their own, because Ray and its workers print to standard output. What the child prints
goes to a log file, never to a pipe: a raylet that outlives a test would hold it open.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent


class Failed(RuntimeError):
    """The other process raised an exception, ended, or did not answer."""


class Peer:
    """A child process `python -m module`, whose methods can be called."""

    def __init__(self, module: str, *arguments: str, env: Mapping[str, str], log: Path) -> None:
        read, write = os.pipe()
        self._log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(write), *arguments],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=dict(env),
                pass_fds=[write],
                text=True,
                start_new_session=True,
            )
        os.close(write)
        self._read = os.fdopen(read, "r")
        self.pid = self.process.pid

    def ask(self, method: str, **arguments: Any) -> None:
        """Begin a call; answer() gives its result."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps([method, arguments]) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise Failed(f"{method}: the process has ended: {error}\n{self.tail()}") from error

    def answer(self, timeout_s: float = 120.0) -> Any:
        """The result of the call begun with ask(); Failed if it raised, ended, or took longer."""
        ready, _, _ = select.select([self._read], [], [], timeout_s)
        if not ready:
            raise Failed(f"no answer within {timeout_s} s\n{self.tail()}")
        line = self._read.readline()
        if not line:
            raise Failed(f"the process has ended\n{self.tail()}")
        kind, value = json.loads(line)
        if kind == "error":
            raise Failed(value)
        return value

    def call(self, method: str, timeout_s: float = 120.0, **arguments: Any) -> Any:
        """ask() and answer()."""
        self.ask(method, **arguments)
        return self.answer(timeout_s)

    def tail(self) -> str:
        """The end of what the process has printed."""
        try:
            return self._log.read_text(errors="replace")[-3000:]
        except OSError:
            return ""

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self._close()

    def end(self, timeout_s: float = 60.0) -> None:
        """Let it end by itself (its input ends); SIGKILL if it does not within the time."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            self.process.wait(timeout_s)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
        self._close()

    def end_session(self) -> None:
        """SIGKILL to all processes that it has started and that are still in its session."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if os.getsid(int(entry.name)) == self.pid:
                        os.kill(int(entry.name), signal.SIGKILL)
                except OSError:
                    continue  # gone meanwhile
        self._close()

    def _close(self) -> None:
        self.process.wait()
        for file in (self.process.stdin, self._read):
            try:
                if file is not None:
                    file.close()
            except OSError:
                pass  # what was still to be written has no reader any more


def serve(methods: object, file_descriptor: int) -> None:
    """In the child: answer calls of the methods of an object until standard input ends."""
    os.set_inheritable(file_descriptor, False)
    with os.fdopen(file_descriptor, "w") as out:
        for line in sys.stdin:
            method, arguments = json.loads(line)
            try:
                answer = ["result", getattr(methods, method)(**arguments)]
            except Exception:  # noqa: BLE001 - raised again where the call came from
                answer = ["error", traceback.format_exc()]
            out.write(json.dumps(answer) + "\n")
            out.flush()


def eventually(condition: Any, what: str, timeout_s: float = 60.0) -> Any:
    """The first true value of condition(), asked every 10 ms; Failed if there is none within the time."""
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise Failed(f"not within {timeout_s} s: {what}")
        time.sleep(0.01)
    return value
