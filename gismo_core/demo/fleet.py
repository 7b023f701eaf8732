"""The hosts of the demo: of each a state directory (so a lane), a writer, a reader, and a store opened here to look."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gismo_core
from gismo_core import Store
from gismo_core.demo.plan import Plan
from gismo_core.demo.report import DemoError

_PATIENCE_S = 20.0


class Worker:
    """Our side of one process."""

    def __init__(self, role: str, host: int, path: Path, state_dir: Path, options: dict[str, Any]) -> None:
        self.role = role
        self.host = host
        self._unread = b""
        package = str(Path(gismo_core.__file__).parent.parent)
        environment = os.environ | {
            "GISMO_STORE": str(path),
            "GISMO_STATE_DIR": str(state_dir),
            "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
        }
        environment.pop("GISMO_HOST_ID", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gismo_core.demo.worker", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self.send(options)

    @property
    def pid(self) -> int:
        return self.process.pid

    def __str__(self) -> str:
        return f"{self.role} of host {self.host} (pid {self.pid})"

    def send(self, words: dict[str, Any]) -> None:
        """One line to it."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(words).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def hear(self) -> dict[str, Any]:
        """One line from it."""
        assert self.process.stdout is not None
        until_s = time.monotonic() + _PATIENCE_S
        while b"\n" not in self._unread:
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not select.select([self.process.stdout], [], [], left_s)[0]:
                raise DemoError(f"the {self} did not answer within {_PATIENCE_S:.0f} s")
            got = os.read(self.process.stdout.fileno(), 65536)
            if not got:
                raise self._ended()
            self._unread += got
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, do: str, **words: Any) -> dict[str, Any]:
        """An order, and its answer."""
        self.send({"do": do, **words})
        return self.hear()

    def check_alive(self) -> None:
        """DemoError if it ended without being told to."""
        if self.process.poll() is not None:
            raise self._ended()

    def _ended(self) -> DemoError:
        return DemoError(f"the {self} ended early with status {self.process.wait()}; its error is above")

    def stop(self) -> None:
        """SIGSTOP, and wait until it has stopped."""
        self.process.send_signal(signal.SIGSTOP)
        until_s = time.monotonic() + _PATIENCE_S
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            if time.monotonic() > until_s:
                raise DemoError(f"the {self} did not stop")
            time.sleep(0.001)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Let it close its store and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            status = self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"the {self} did not end within {_PATIENCE_S:.0f} s") from None
        if status:
            raise self._ended()

    def remove(self) -> None:
        """However it is, also stopped or dead: gone after this."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@dataclass(slots=True)
class Host:
    """One lane. `store` is open in this process, as a further process of that host."""

    number: int
    lane: int
    state_dir: Path
    store: Store
    writer: Worker
    reader: Worker


@dataclass(frozen=True, slots=True)
class HostSample:
    """What a host's counters say; `ops`: pid -> puts + gets of that process."""

    puts: int
    gets: int
    put_bytes: int
    get_bytes: int
    objects: int
    pins: int
    ops: dict[int, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """All hosts at about one time, seconds of the monotonic clock."""

    at_s: float
    hosts: tuple[HostSample, ...]

    def ops(self, pid: int) -> int:
        """Of one process; 0 if it is gone."""
        return next((host.ops[pid] for host in self.hosts if pid in host.ops), 0)


class Fleet:
    """All hosts."""

    def __init__(self, path: Path, hosts: list[Host]) -> None:
        self.path = path
        self.hosts = hosts

    @property
    def workers(self) -> list[Worker]:
        """Writers and readers that have not been told to end, nor killed."""
        return [
            worker for host in self.hosts for worker in (host.writer, host.reader) if worker.process.returncode is None
        ]

    @property
    def readers(self) -> list[Worker]:
        return [host.reader for host in self.hosts]

    def check_alive(self) -> None:
        """DemoError if one has ended that should not have."""
        for worker in self.workers:
            worker.check_alive()

    def tell(self, do: str, workers: list[Worker] | None = None, **words: Any) -> list[dict[str, Any]]:
        """The same order to several at once; their answers in that order."""
        told = self.workers if workers is None else workers
        for worker in told:
            worker.send({"do": do, **words})
        return [worker.hear() for worker in told]

    def sample(self) -> Sample:
        """Read all counters."""
        objects = {one.host_id: one.objects for one in self.hosts[0].store.hosts()}
        found = []
        for host in self.hosts:
            stats = host.store.stats()
            processes = host.store.processes()
            found.append(
                HostSample(
                    puts=stats.puts,
                    gets=stats.gets,
                    put_bytes=stats.put_bytes,
                    get_bytes=stats.get_bytes,
                    objects=objects.get(host.lane, 0),
                    pins=sum(one.pins for one in processes),
                    ops={one.pid: one.puts + one.gets for one in processes},
                )
            )
        return Sample(time.monotonic(), tuple(found))

    def used_bytes(self) -> int:
        """Of the whole store."""
        return self.hosts[0].store.stats().used_bytes

    def settled(self) -> bool:
        """What was deleted is free: nobody pins it any more, and its host has seen that."""
        return self.hosts[0].store.stats().deleted_objects == 0

    def end_workers(self) -> None:
        """All that live close their store and end."""
        for worker in self.workers:
            worker.end()


@contextlib.contextmanager
def start(plan: Plan, path: Path, work: Path) -> Iterator[Fleet]:
    """Start every process and open the store once per host; everything is gone in the end, however that comes."""
    with contextlib.ExitStack() as stack:
        started: list[tuple[Path, Worker, Worker]] = []
        for number in range(plan.hosts):
            state_dir = work / f"host-{number}"
            state_dir.mkdir()
            options = {
                "number": number,
                "hosts": plan.hosts,
                "places": plan.places,
                "largest_bytes": plan.largest_bytes,
                "seed": plan.seed,
                "sabotage": plan.sabotage,
            }
            writer = Worker("writer", number, path, state_dir, options)
            stack.callback(writer.remove)
            reader = Worker("reader", number, path, state_dir, options)
            stack.callback(reader.remove)
            started.append((state_dir, writer, reader))
        hosts = []
        for number, (state_dir, writer, reader) in enumerate(started):
            writer.hear()
            reader.hear()
            store = stack.enter_context(gismo_core.open(path, state_dir=state_dir))
            hosts.append(Host(number, store.stats().lane, state_dir, store, writer, reader))
        yield Fleet(path, hosts)
