"""A process of the benchmark: one that runs cycles, dies with half-written objects, or opens a store.

``python -m gismo_core.bench.worker ROLE SPEC STATE_DIR [ARGUMENT …]``, started by :class:`Worker`. It answers in
lines on stdout, and it ends when its stdin does, or its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gismo_core.bench.clib import native

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends: also if it is stopped, also if the parent was killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))


class WorkerError(Exception):
    """A worker did not answer."""


class Worker:
    """The parent's side of one worker."""

    def __init__(self, role: str, spec: str, state_dir: Path, *arguments: int) -> None:
        self.role = role
        command = [sys.executable, "-m", "gismo_core.bench.worker", role, spec, str(state_dir), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, *words: int) -> None:
        """Send one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def hear(self) -> list[int]:
        """Wait for one line of numbers."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"the {self.role} worker ended early with status {self.process.wait()}; see stderr")
        return [int(word) for word in line.split()]

    def kill(self) -> None:
        """SIGKILL, and wait until it is dead."""
        self.process.kill()
        self.process.wait()

    def finish(self) -> None:
        """Let it close its store and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        status = self.process.wait(timeout=60)
        if status != 0:
            raise WorkerError(f"the {self.role} worker ended with status {status}; see stderr")


@contextmanager
def workers(role: str, spec: str, state_dirs: list[Path], *arguments: int) -> Iterator[list[Worker]]:
    """One worker per entry of state_dirs, all ready; ended in any case."""
    started: list[Worker] = []
    try:
        for state_dir in state_dirs:
            started.append(Worker(role, spec, state_dir, *arguments))
            started[-1].hear()
        yield started
        for worker in started:
            if worker.process.poll() is None:
                worker.finish()
    finally:
        for worker in started:
            worker.kill()


def main(role: str, spec: str, state_dir: str, *arguments: str) -> None:
    """Play one role; the first line says that the store is open, with the ns that took."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    library = native()
    numbers = [int(argument) for argument in arguments]
    with library.opened(spec, Path(state_dir)) as store:
        if role == "hold":
            store.hold(*numbers)
        elif role == "fill":
            store.fill(numbers[0], numbers[1], named=False)
        print(store.open_ns, flush=True)
        for line in sys.stdin:
            begin, end = map(int, line.split())
            print(*store.cycle_window(numbers[0], begin, end), flush=True)
    os.close(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
