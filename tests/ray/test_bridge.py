"""A process without the pool: all the ways in which it comes by a value, in a real cluster (docs/ray.md).

One node has the pool; another one and the drivers have none. The scenarios are functions of tests/bridge_scenarios.py and
run in a driver of their own, since this process may have opened a store.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gismo_core

pytestmark = pytest.mark.timeout(240)

PROGRAM = Path(__file__).parent.parent / "bridge_driver.py"
ANSWER_S = 150.0
SCENARIOS = [
    "get", "containers", "whole_bytes", "several", "shapes", "pieces", "foreign", "references", "arguments", "actors",
    "loop_goes_on", "awaits", "generators", "unpickling_that_gets", "errors", "time_outs", "data", "writes_as_ray_does",
    "once_per_record", "bridge_killed", "keeper_killed", "keeper_gone", "lost", "nothing_held",
]  # fmt: skip


class Program:
    """bridge_driver.py in one of its parts; ended by the end of its input."""

    def __init__(self, folder: Path, environment: dict[str, str | None], *arguments: str) -> None:
        kept = {**os.environ, **environment}
        self.log = folder / f"{arguments[0]}-{len(list(folder.iterdir()))}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True, env={name: value for name, value in kept.items() if value is not None},
                start_new_session=True,
            )  # fmt: skip
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def line(self) -> str:
        """Its next line; what it logged if it ended or says nothing."""
        try:
            line = self._lines.get(timeout=ANSWER_S)
        except queue.Empty:
            line = ""
        if not line:
            pytest.fail(f"{PROGRAM.name} gave no answer; its log ends with\n{self.log.read_text()[-4000:]}")
        return line.strip()

    def run(self, scenario: str) -> None:
        """Fails with the traceback of the scenario."""
        assert self._process.stdin is not None
        self._process.stdin.write(scenario + "\n")
        self._process.stdin.flush()
        problem = json.loads(self.line())
        if problem:
            pytest.fail(f"{scenario}:\n{problem}")

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=60)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            pass
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process.stdout.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str | None], str]]:
    """(folder of logs, environment of a process without the pool, address of the cluster)."""
    folder = Path("/dev/shm") / f"gismo-bridge-{os.getpid()}"
    folder.mkdir()
    logs = tmp_path_factory.mktemp("bridge")
    try:
        gismo_core.format(folder / "pool", size=256 << 20)
        store = f"file:{folder / 'pool'}"
        state: dict[str, str | None] = {"GISMO_STATE_DIR": str(folder / "state")}
        cluster = Program(logs, {**state, "GISMO_STORE": store}, "cluster")
        try:
            yield logs, {**state, "GISMO_STORE": store + "-missing"}, cluster.line()
        finally:
            cluster.end()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def driver(place: Any) -> Iterator[Program]:
    logs, environment, address = place
    program = Program(logs, environment, "driver", address)
    try:
        program.run("begin")
        yield program
    finally:
        program.end()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_reads_by_the_bridge(driver: Program, scenario: str) -> None:
    driver.run(scenario)


@pytest.mark.parametrize("scenario", ["first_get", "first_await", "first_argument"])
def test_without_the_variable(place: Any, driver: Program, scenario: str) -> None:
    logs, _, address = place
    program = Program(logs, {"GISMO_STORE": None}, "driver", address)
    try:
        program.run(scenario)
    finally:
        program.end()
