"""One cluster, from outside: started in a process of its own, asked for work, ended without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gismo_core.bench.clusters import processes
from gismo_core.bench.clusters.shape import Shape
from gismo_core.bench.worker import WorkerError

GISMO, STOCK = "gismo", "stock Ray"
_PARENT, _PREFIX = "/tmp", "gb-"
_LOG_TAIL_BYTES = 3000
_END_S = 20.0
_ANSWER_S = 900.0  # the longest piece of work takes two minutes on a slow machine


class SideError(WorkerError):
    """The cluster's driver failed at something, or ended; the message has the end of its log."""


class Side:
    """A cluster and its driver. ``store``: the pool of Gismo, "" for stock Ray."""

    def __init__(
        self,
        name: str,
        shape: Shape,
        *,
        store: str = "",
        state_dir: Path | None = None,
        answer_s: float = _ANSWER_S,
    ) -> None:
        self.name = name
        self.answer_s = answer_s
        self.shape = shape
        self.store = store
        self.state_dir = state_dir
        # Short: socket paths below it may have 107 bytes. With our pid: see sweep().
        self.directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_PARENT))
        (self.directory / "ray").mkdir()  # Ray notes there where its cluster is
        self._log = self.directory / "driver.log"
        processes.adopt_orphans()
        log = self._log.open("wb")
        with log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "gismo_core.bench.clusters.driver",
                    str(self.directory),
                    json.dumps(shape.as_json()),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment(),
                text=True,
                start_new_session=True,  # Ctrl-C is ours to hear
            )

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("GISMO_", "RAY_"))}
        environment |= self.shape.env
        # Everything of Ray in our directory, also the note where the machine's cluster is.
        environment["RAY_TMPDIR"] = str(self.directory)
        environment["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        environment["RAY_USAGE_STATS_ENABLED"] = "0"
        # The machine is full on purpose, and shared: Ray must not kill workers for what others take.
        environment["RAY_memory_monitor_refresh_ms"] = "0"
        if self.store:
            environment["GISMO_STORE"] = self.store
            environment["GISMO_STATE_DIR"] = str(self.state_dir)
        if self.shape.warm_both if self.store else self.shape.warm:
            environment["RAY_preallocate_plasma_memory"] = "1"
        return environment

    @property
    def has_gismo(self) -> bool:
        """Whether this is the cluster with Gismo."""
        return bool(self.store)

    def ready(self) -> None:
        """Wait until the cluster is there."""
        self._hear()

    def ask(self, what: str, /, **arguments: Any) -> Any:
        """Have ``work.MODULE.FUNCTION`` ("MODULE.FUNCTION") run in the driver; what it returns."""
        self.tell(what, **arguments)
        return self._hear()

    def tell(self, what: str, /, **arguments: Any) -> None:
        """As ask(), without waiting; hear() gets the answer."""
        stdin = self.process.stdin
        if stdin is None:
            raise SideError("its stdin is closed")
        try:
            stdin.write(json.dumps({"do": what, "with": arguments}) + "\n")
            stdin.flush()
        except BrokenPipeError:
            self._hear()

    def hear(self) -> Any:
        """The answer to tell()."""
        return self._hear()

    def measured(self, what: str, /, **arguments: Any) -> tuple[Any, float]:
        """As ask(), with the processor time that the whole cluster took meanwhile, s."""
        before = processes.cpu_seconds(self.process.pid)
        answer = self.ask(what, **arguments)
        return answer, processes.spent(before, processes.cpu_seconds(self.process.pid))

    def _hear(self) -> Any:
        if self.process.stdout is None:
            raise SideError("its stdout is closed")
        # Its driver waits for Ray in many places, and Ray for others: without a limit one that is stuck holds us for ever.
        is_late = threading.Event()

        def end_it() -> None:
            is_late.set()
            self.process.kill()

        timer = threading.Timer(self.answer_s, end_it)
        timer.daemon = True
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            status = self.process.wait()
            if is_late.is_set():
                raise SideError(f"{self.name} did not answer within {self.answer_s:g} s: {self.log_tail()}")
            raise SideError(f"the driver of {self.name} ended with status {status}: {self.log_tail()}")
        answer: Mapping[str, Any] = json.loads(line)
        if "error" in answer:
            raise SideError(f"{self.name}: {answer['error']}")
        return answer["ok"]

    def log_tail(self) -> str:
        """The end of what its driver wrote to stderr."""
        try:
            return self._log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            return ""

    def end(self) -> None:
        """Shut the cluster down; kill what does not go by itself; remove its files."""
        pids = processes.descendants(self.process.pid)
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        if self.process.poll() is None:
            try:
                self.process.wait(timeout=_END_S)
            except subprocess.TimeoutExpired:
                pids = processes.descendants(self.process.pid)
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
        processes.end_all([pid for pid in pids if pid != self.process.pid])
        if self.process.stdout is not None:
            self.process.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def sweep(pid: int) -> None:
    """Remove what clusters of a process that is dead left, and end what still runs for them as a child of ours.

    Whoever calls this has called processes.adopt_orphans() before the process was started.
    """
    processes.end_all([child for child in processes.descendants(os.getpid()) if _belongs(child, pid)])
    for left in Path(_PARENT).glob(f"{_PREFIX}{pid}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _belongs(child: int, pid: int) -> bool:
    try:
        return f"RAY_TMPDIR={_PARENT}/{_PREFIX}{pid}-".encode() in Path(f"/proc/{child}/environ").read_bytes()
    except OSError:
        return False
