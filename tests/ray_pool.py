"""What tests of the integration with Ray share: a pool, an environment, a program in a process of its own.

Each program is a whole Python process, as a user's is: what loads at its start is what is tested.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gismo_core
from gismo_core.ray import gismo_boot, record

MiB = 1024**2
# On a machine that is busy with other tests. A raylet whose agents need more than 15 s to start ends (Ray 2.60, and no
# setting changes that), so whoever can starts it again.
RAYLET_START_S = 60
_AUTH_TOKEN = secrets.token_hex(32)

# What programs begin with: a small cluster in this process, and how to tell where an array lies.
PRELUDE = """
import json, os, sys
import numpy as np
import ray

def start(**options):
    options = {"address": "local", "num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False} | options
    return ray.init(**options)

def in_store(array):
    from gismo_core.ray import session
    store = session.open_store()
    return store is not None and store.find(memoryview(array)) is not None

@ray.remote(num_cpus=1)
def here(array):
    return in_store(array), int(array[-1])

@ray.remote(num_cpus=1)
def make(n):
    return np.full(n, 7, np.uint8)

@ray.remote(num_cpus=0)
class Keep:
    def make(self, n):
        return np.full(n, 9, np.uint8)
    def where(self, array):
        return in_store(array), int(array[-1])
"""

# A whole round: values of the driver, of a task and of an actor, read by the driver, a task and an actor. The first
# returns of a new worker may go Ray's own way (the keeper is only starting), so rounds are made until they do not.
ROUND = """
import time

def settled(timeout_s=60):
    actor = Keep.remote()
    end = time.monotonic() + timeout_s
    while True:
        found = everywhere(actor)
        if all(stored for stored, _ in found.values()) or time.monotonic() > end:
            return found
        time.sleep(0.1)

def everywhere(actor=None):
    size = 1 << 20
    actor = actor or Keep.remote()
    put, returned, acted = ray.put(np.full(size, 5, np.uint8)), make.remote(size), actor.make.remote(size)
    found = {
        "driver reads put": (in_store(ray.get(put)), int(ray.get(put)[-1])),
        "driver reads return": (in_store(ray.get(returned)), int(ray.get(returned)[-1])),
        "driver reads actor": (in_store(ray.get(acted)), int(ray.get(acted)[-1])),
        "task reads put": tuple(ray.get(here.remote(put))),
        "task reads return": tuple(ray.get(here.remote(returned))),
        "actor reads return": tuple(ray.get(actor.where.remote(returned))),
        "task reads argument by value": tuple(ray.get(here.remote(np.full(size, 6, np.uint8)))),
    }
    return found
"""

VALUES = {
    "driver reads put": 5,
    "driver reads return": 7,
    "driver reads actor": 9,
    "task reads put": 5,
    "task reads return": 7,
    "actor reads return": 7,
    "task reads argument by value": 6,
}


def everywhere(in_store: bool) -> dict[str, list[object]]:
    """What ROUND's everywhere() gives (as JSON) when all is well."""
    return {name: [in_store, value] for name, value in VALUES.items()}


@dataclass(frozen=True, slots=True)
class Pool:
    """A formatted pool and the environment of one who uses it."""

    path: str
    folder: Path
    ray_folder: Path  # of the sessions: a short path, for their sockets, and where nobody else's cluster is found

    def environment(self, **more: str | None) -> dict[str, str]:
        """For a process that is to use the pool; None takes a variable away."""
        keep = {key: value for key, value in os.environ.items() if not key.startswith(("GISMO_", "RAY_", "PYTHON"))}
        made: dict[str, str | None] = {
            **keep,
            "GISMO_STORE": f"file:{self.path}",
            "GISMO_STATE_DIR": str(self.folder / "state"),
            "RAY_TMPDIR": str(self.ray_folder),
            # With a token, as Ray has it by default, but not one in the home of whoever runs the tests.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": _AUTH_TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "RAY_DEDUP_LOGS": "0",
            "RAY_raylet_start_wait_time_s": str(RAYLET_START_S),
            "PYTHONDONTWRITEBYTECODE": None,
            **more,
        }
        return {key: value for key, value in made.items() if value is not None}


@contextlib.contextmanager
def pool_in(parent: str = "/dev/shm", size: int = 256 * MiB) -> Iterator[Pool]:
    """A pool in a folder of its own on tmpfs, both gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="gismo-test-", dir=parent))
    ray_folder = Path(tempfile.mkdtemp(prefix="gr-"))
    try:
        path = str(folder / "pool")
        gismo_core.format(path, size=size, populate=False)
        yield Pool(path, folder, ray_folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(ray_folder, ignore_errors=True)


@contextlib.contextmanager
def ray_here() -> Iterator[Any]:
    """Ray, started in this process, with a pool; yields the module ray."""
    with pytest.MonkeyPatch.context() as patch, pool_in(size=512 * MiB) as pool:
        patch.setenv("GISMO_STORE", f"file:{pool.path}")
        patch.setenv("GISMO_STATE_DIR", str(pool.folder / "state"))
        gismo_boot.register()
        import ray

        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=200 * MiB, log_to_driver=False)
        try:
            yield ray
        finally:
            ray.shutdown()


def serialized(context: Any, callers: dict[int, record.Kind], value: Any) -> Any:
    """What context.serialize makes of a value when .remote() calls it: the allow list goes by the caller."""
    code = compile("result = context.serialize(value)", "remote", "exec")
    scope = {"context": context, "value": value}
    callers[id(code)] = record.Kind.ARGUMENT
    try:
        exec(code, scope)
    finally:
        del callers[id(code)]
    return scope["result"]


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def warnings(self) -> list[str]:
        """The lines in which Gismo warns, of this process alone (workers' lines carry a prefix of Ray's)."""
        return [line for line in self.err.splitlines() if line.startswith("Gismo:")]


def run(
    program: str,
    environment: dict[str, str],
    folder: Path,
    *,
    python: Path | str = sys.executable,
    arguments: tuple[str, ...] = (),
    timeout_s: float = 120,
) -> Ran:
    """Run a program from a file. Output goes to files: a raylet that is left over cannot hold a pipe open."""
    script = folder / "program.py"
    script.write_text(program)
    return run_command([str(python), str(script), *arguments], environment, folder, timeout_s=timeout_s)


def run_command(command: list[str], environment: dict[str, str], folder: Path, *, timeout_s: float = 120) -> Ran:
    """Run a command in a session of its own, all of which ends with it."""
    out, err = folder / "out.txt", folder / "err.txt"
    with out.open("wb") as to_out, err.open("wb") as to_err:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=to_out, stderr=to_err,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = -9
        end_session(process)
    return Ran(code, out.read_text(errors="replace"), err.read_text(errors="replace"))


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, all that it started, and what is left of its session."""
    for pid in [*_descendants(process.pid), process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, look = [], [pid]
    while look:
        below = children.get(look.pop(), [])
        found += below
        look += below
    return found
