"""``store.cycle.contended*``: eight processes, one of them stopped, and four hosts of two, against one process."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from gismo_core.bench.clib import native
from gismo_core.bench.cycle import OBJECT_BYTES
from gismo_core.bench.group import MIB, Context, Group
from gismo_core.bench.noise import Usage, run_seconds
from gismo_core.bench.result import Measurement, Row
from gismo_core.bench.worker import Worker, WorkerError, workers

PROCESSES = 8
ATTEMPTS = 10
QUIET = 0.03
"""A window in which other processes took more of the cores than this is measured again, a few times."""
LANES = 4

CONTENDED = Row(
    name="store.cycle.contended",
    unit="cycles/s",
    better="higher",
    what="8 processes of one host ÷ (cores * one process)",
    judged="ratio",
    reach=0.9,
    aim=1.0,
)
STOPPED = Row(
    name="store.cycle.contended.stopped",
    unit="cycles/s",
    better="higher",
    what="the same with one of the 8 stopped, the other 7 sharing the cores, ÷ all 8 running",
    judged="ratio",
    reach=0.8,
    aim=1.0,
)
LANED = Row(
    name="store.cycle.contended.lanes",
    unit="cycles/s",
    better="higher",
    what="4 hosts of 2 processes each ÷ (cores * one process)",
    judged="ratio",
    reach=0.8,
    aim=1.0,
)

STORE_BYTES = 256 * MIB


def _state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class Window:
    """Operations of some processes in one span of time, the same for all: begun before it, ended after it."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.lead_ns = 100_000_000
        self.length_ns = context.pick(500_000_000, 50_000_000)
        self.longest_ns = 0
        self.foreign: list[float] = []
        self.done: dict[Worker, int] = {}

    def rate(self, running: list[Worker], stopped: Worker | None = None) -> float:
        """Cycles per second of all but ``stopped``, which is stopped at a random moment before the window begins."""
        tried: list[tuple[float, float]] = []
        for attempt in range(ATTEMPTS):
            outcome = self._try_rate(running, stopped)
            if outcome is None:
                continue
            tried.append(outcome)
            if outcome[0] < QUIET or (self.context.quick and attempt > 0):
                break
        if not tried:
            raise WorkerError(f"a process could not be stopped in time {ATTEMPTS} times: is this machine very busy?")
        # Which window counts is decided by what others took of the cores, never by the rate itself.
        foreign, rate = min(tried)
        self.foreign.append(foreign)
        return rate

    def _try_rate(self, running: list[Worker], stopped: Worker | None) -> tuple[float, float] | None:
        begin = native().now() + self.lead_ns
        end = begin + self.length_ns
        everyone = [*running, stopped] if stopped is not None else running
        for worker in everyone:
            worker.tell(begin, end)
        if stopped is not None:
            # It runs the loop by then, and is stopped wherever it is.
            time.sleep(self.lead_ns / 1e9 * random.uniform(0.2, 0.5))
            os.kill(stopped.process.pid, signal.SIGSTOP)
            while _state_of(stopped.process.pid) != "T":
                time.sleep(0.0005)
        in_time = native().now() < begin
        pids = [worker.process.pid for worker in running]
        time.sleep(max(0, begin - native().now()) / 1e9)
        before = Usage.now(run_seconds(pids))
        time.sleep(max(0, end - native().now()) / 1e9)
        foreign = Usage.now(run_seconds(pids)).foreign_since(before)
        total = 0
        for worker in running:
            count, longest_ns = worker.hear()
            self.done[worker] = self.done.get(worker, 0) + count
            total += count
            self.longest_ns = max(self.longest_ns, longest_ns)
        if stopped is not None:
            os.kill(stopped.process.pid, signal.SIGCONT)
            stopped.hear()
            if not in_time:
                return None  # this process got no core in time; a window with all 8 in it does not count
        return foreign, total / (end - begin) * 1e9


def run(context: Context) -> Iterator[Measurement]:
    """By turns: one process alone in a store, eight of one host, seven while one stands still, four hosts of two."""
    library = native()
    cores = len(os.sched_getaffinity(0))
    window = Window(context)
    one: list[float] = []
    rates: dict[str, list[float]] = {row.name: [] for row in (CONTENDED, STOPPED, LANED)}
    specs: list[str] = []
    with ExitStack() as stack:

        def start(name: str, state_dirs: list[Path]) -> list[Worker]:
            # A device holds one store: there all of them are hosts of the same one.
            if context.medium.kind != "dax" or not specs:
                beside = name if context.medium.kind != "dax" else ""
                fresh = context.medium.fresh(lambda spec: library.format(spec, STORE_BYTES), beside)
                specs.append(stack.enter_context(fresh))
            spec = specs[-1]
            return stack.enter_context(workers("cycle", spec, state_dirs, OBJECT_BYTES))

        [alone] = start("alone", [context.state_dir("alone")])
        crowd, hosts = [], []
        if context.wanted & {CONTENDED.name, STOPPED.name}:
            crowd = start("crowd", [context.state_dir("crowd")] * PROCESSES)
        if LANED.name in context.wanted:
            hosts = start("hosts", [context.state_dir(f"lane{i % LANES}") for i in range(PROCESSES)])
        for sample in range(context.samples):
            one.append(cores * window.rate([alone]))
            if crowd:
                rates[CONTENDED.name].append(window.rate(crowd))
                if STOPPED.name in context.wanted:
                    victim = crowd[sample % PROCESSES]
                    rates[STOPPED.name].append(
                        window.rate([worker for worker in crowd if worker is not victim], stopped=victim)
                    )
            if hosts:
                rates[LANED.name].append(window.rate(hosts))
    if 0 in window.done.values():
        raise WorkerError("a process did nothing at all while others ran, or while one was stopped")
    context.say(f"longest 16 cycles of any process: {window.longest_ns / 1e6:.1f} ms, waits for a core included")
    context.say(f"other processes took up to {max(window.foreign):.0%} of the cores in the windows that count")
    single = {f"{cores} cores * one process": one}
    if crowd:
        yield Measurement(CONTENDED.name, rates[CONTENDED.name], single)
    if STOPPED.name in context.wanted:
        yield Measurement(STOPPED.name, rates[STOPPED.name], {"all 8 running": rates[CONTENDED.name]})
    if hosts:
        yield Measurement(LANED.name, rates[LANED.name], single)


GROUPS = (Group("store.cycle.contended", (CONTENDED, STOPPED, LANED), run, lambda _: 3 * STORE_BYTES),)
