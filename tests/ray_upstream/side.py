"""One run of one of Ray's test files, with stock Ray or with Gismo, in namespaces of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gismo_core
import ray_pool
from ray_upstream import finder, inside, outcomes
from ray_upstream.outcomes import Outcomes
from ray_upstream.sources import Source

_DONE = re.compile(r"^.*::.* (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", re.MULTILINE)
_TELL_S = 60
_LAST_S = 90  # for pytest to write what it has, past its limit


@dataclass(frozen=True, slots=True)
class Settings:
    """The same for both sides."""

    python: Path
    pool_bytes: int
    test_s: int
    file_s: int
    only: str  # as pytest's -k
    apart: tuple[str, ...]  # tests that run in a process of their own
    logs: Path


@dataclass(frozen=True, slots=True)
class Ran:
    """What it came to."""

    outcomes: Outcomes
    log: str
    stored_objects: int
    stored_bytes: int
    wall_s: float
    cut_off: bool  # by the limit of a file: a test that is not in `outcomes` says nothing then


def run(source: Source, settings: Settings, *, gismo: bool, tests: Sequence[str] = (), label: str = "") -> Ran:
    """Run the file but for `settings.apart`, or some of its tests (by their ids without the file); logs: settings.logs."""
    name = f"{source.name.replace('/', '.')}-{'gismo' if gismo else 'stock'}{label}"
    log, junit = settings.logs / f"{name}.txt", settings.logs / f"{name}.xml"
    junit.unlink(missing_ok=True)
    pytest = [
        str(settings.python), "-m", "pytest", "-v", "-p", "no:cacheprovider", "--asyncio-mode=auto",
        f"--timeout={settings.test_s}", f"--junitxml={junit}", "-o", "junit_family=xunit2", "--tb=short",
        *selection(source, settings, tests),
    ]  # fmt: skip
    begin = time.monotonic()
    with _folder() as ray_folder, _store(settings.pool_bytes) if gismo else contextlib.nullcontext() as store:
        command = [
            *namespaces(), sys.executable, inside.__file__, str(settings.file_s), str(ray_folder), *pytest,
        ]  # fmt: skip
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, env=_environment(source, store), cwd=source.path.parent, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                _wait(process, log, begin, begin + settings.file_s + _LAST_S)
            finally:
                ray_pool.end_session(process)
        objects, stored = _stored(store) if store else (0, 0)
    text = log.read_text(errors="replace")
    cut_off = process.returncode == inside.CUT_OFF
    read = outcomes.read(junit, source.path.stem) or (outcomes.read_log(text, source.path.stem) if cut_off else {})
    return Ran(read, text, objects, stored, time.monotonic() - begin, cut_off)


def selection(source: Source, settings: Settings, tests: Sequence[str]) -> list[str]:
    """What pytest is told to run."""
    if tests:
        return [f"{source.path}::{test}" for test in tests]
    options = ["-k", settings.only] if settings.only else []
    if settings.apart:  # --deselect takes ids as they are below the root folder, which is pytest's guess otherwise
        options += [f"--rootdir={source.path.parent}"]
        options += [f"--deselect={source.path.name}::{test}" for test in settings.apart]
    return [*options, str(source.path)]


def namespaces() -> list[str]:
    """What a command begins with that may neither see nor end other processes of this machine.

    Ray's own tests call `ray stop`, which ends every cluster that it sees, and use ports of their own choice.
    """
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", *user, "--fork", "--pid", "--kill-child", "--mount-proc", "--net"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True) if shutil.which("unshare") else None
    if tried is None or tried.returncode:
        why = tried.stderr.strip() if tried else "there is no unshare (package util-linux)"
        raise SystemExit(
            f"no namespaces can be made here: {why}. Ray's tests run only in some of their own, "
            "for they call `ray stop`, which would end every cluster of this machine. Run this as root"
        )
    return command


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gr-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _store(size: int) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gismo-test-", dir="/dev/shm"))
    try:
        gismo_core.format(folder / "pool", size=size, populate=False)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stored(folder: Path) -> tuple[int, int]:
    """Objects and bytes that were put into the store since it was made, a few small ones of Gismo's own among them."""
    with gismo_core.open(folder / "pool", state_dir=folder / "state") as store:
        stats = store.stats()
    return stats.puts, stats.put_bytes


def _environment(source: Source, store: Path | None) -> dict[str, str]:
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("GISMO_", "RAY_", "PYTHON", "PYTEST"))
    }
    gismo = {"GISMO_STORE": f"file:{store}/pool", "GISMO_STATE_DIR": f"{store}/state"} if store else {}
    return {
        **kept,
        **gismo,
        finder.VARIABLE: str(source.package),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "240",
    }


def _wait(process: subprocess.Popen[bytes], log: Path, begin: float, end: float) -> None:
    """Until it has ended, or `end`; says once a minute how far it is."""
    while time.monotonic() < end:
        try:
            process.wait(min(_TELL_S, max(0.1, end - time.monotonic())))
            return
        except subprocess.TimeoutExpired:
            done = len(_DONE.findall(log.read_text(errors="replace")))
            print(f"    … {time.monotonic() - begin:.0f} s, {done} tests done", file=sys.stderr, flush=True)
