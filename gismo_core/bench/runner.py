"""Runs groups, each in a process of its own, so that a crash of one costs that one, and nothing is left behind.

``python -m gismo_core.bench.runner JSON`` is such a process; its measurements go to stdout as one line of JSON.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gismo_core.bench import catalog
from gismo_core.bench.clib import MissingLibraryError, NativeError
from gismo_core.bench.clusters import processes, side
from gismo_core.bench.group import Context, Group
from gismo_core.bench.medium import Medium, RefusedError
from gismo_core.bench.noise import Usage
from gismo_core.bench.result import Measurement, Result, judge
from gismo_core.bench.worker import WorkerError, die_with_parent

MIN_SAMPLES = 5
PREFIX = "gismo-bench-"
ABANDONED_S = 10.0


@dataclass(slots=True)
class Report:
    """What a run gave. A row is in exactly one of the three."""

    results: list[Result] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    foreign: dict[str, float] = field(default_factory=dict)
    """Row → share of the cores that other processes took while its group ran."""

    def extend(self, other: Report) -> None:
        """Take another's entries in."""
        self.results += other.results
        self.skipped += other.skipped
        self.failed += other.failed
        self.foreign |= other.foreign


@contextlib.contextmanager
def work_directory(parent: Path | None = None) -> Iterator[Path]:
    """A directory, in `parent` or on tmpfs, that is gone afterwards, also after Ctrl-C and SIGTERM; after SIGKILL, by the next run.

    A lock on it says that its run is alive, whatever PID namespace that is in.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    if parent is None:
        parent = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
    remove_abandoned(parent)
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)
        signal.signal(signal.SIGTERM, before)


def remove_abandoned(parent: Path) -> None:
    """Remove what killed runs left: gigabytes of memory, maybe. One that has just begun has no lock yet: spared."""
    for path in parent.glob(PREFIX + "*"):
        try:
            if path.stat().st_uid != os.geteuid() or time.time() - path.stat().st_mtime < ABANDONED_S:
                continue
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass  # alive
        finally:
            os.close(lock)


def lacking(group: Group, medium: Medium, *, quick: bool) -> str | None:
    """Why a group cannot run here, and what to do; None if it can."""
    missing = [package for package in group.needs_packages if importlib.util.find_spec(_module(package)) is None]
    if missing:
        return f"pip install {' '.join(missing)}"
    other = group.lacks() if group.lacks else None
    if other is not None:
        return other
    need = group.needs_bytes(quick)
    if medium.kind == "dax" and group.store_bytes is not None:
        need = group.store_bytes(quick)
    have = medium.size_bytes()
    if have < need:
        return f"needs {need / 2**30:.1f} GiB on {medium.path}, which has {have / 2**30:.1f} GiB free: make room, or --quick"
    return None


def _module(package: str) -> str:
    return {"vineyard-bdist": "vineyard"}.get(package, package)


def run(
    selection: Sequence[tuple[Group, frozenset[str]]], medium: Medium, *, quick: bool, samples: int
) -> Iterable[Report]:
    """Run the groups one after the other; yields one report for each."""
    for number, (group, wanted) in enumerate(selection, 1):
        print(f"[{number}/{len(selection)}] {', '.join(sorted(wanted))}", file=sys.stderr, flush=True)
        why = lacking(group, medium, quick=quick)
        if why is not None:
            yield Report(skipped=[{"name": name, "why": why} for name in sorted(wanted)])
            continue
        yield run_one(group, wanted, medium, quick=quick, samples=samples)


def run_one(group: Group, wanted: frozenset[str], medium: Medium, *, quick: bool, samples: int) -> Report:
    """Run one group in a process of its own."""
    order = {
        "group": group.name,
        "wanted": sorted(wanted),
        "medium": [medium.kind, str(medium.path), str(medium.work), medium.keep],
        "quick": quick,
        "samples": max(samples, MIN_SAMPLES),
    }
    # The user's GISMO_* are for other stores than these.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GISMO_")}
    environment["GISMO_STATE_DIR"] = str(_state_dir(medium))
    before = Usage.now(_children_s())
    if group.has_daemons:
        processes.adopt_orphans()
    process = subprocess.Popen(
        [sys.executable, "-m", "gismo_core.bench.runner", json.dumps(order)], stdout=subprocess.PIPE, env=environment
    )
    try:
        output, _ = process.communicate()
    finally:
        if process.poll() is None:  # interrupted: it has heard Ctrl-C itself, and cleans up
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if group.has_daemons:
            side.sweep(process.pid)
        for left in medium.work.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    foreign = Usage.now(_children_s()).foreign_since(before)
    report = Report()
    measured: dict[str, Measurement] = {}
    why = ""
    try:
        answer = json.loads(output.splitlines()[-1])
        measured = {entry["name"]: Measurement(**entry) for entry in answer["measurements"]}
        why = answer["error"]
    except (IndexError, ValueError):
        pass
    if process.returncode != 0 and not why:
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"status {process.returncode}"
        why = f"its process ended with {how}; see stderr"
    for row in group.rows:
        if row.name in wanted:
            if row.name in measured:
                report.results.append(judge(row, measured[row.name]))
                if not group.has_daemons:
                    report.foreign[row.name] = round(foreign, 3)
            else:
                report.failed.append({"name": row.name, "why": why or "it gave no figure"})
    return report


def _children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _state_dir(medium: Medium) -> Path:
    path = medium.work / "state-host"
    path.mkdir(exist_ok=True)
    return path


def main(order: str) -> int:
    """The group's process."""
    die_with_parent()

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    asked: dict[str, Any] = json.loads(order)
    kind, path, work, keep = asked["medium"]
    context = Context(
        medium=Medium(kind, Path(path), Path(work), keep),
        wanted=frozenset(asked["wanted"]),
        quick=asked["quick"],
        samples=asked["samples"],
    )
    # What libraries print must not get between us and the reader of the figures.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    measurements: list[dict[str, Any]] = []
    error = ""
    try:
        # One by one: what was measured before a failure counts.
        measurements.extend(map(asdict, catalog.find(asked["group"]).run(context)))
    except KeyboardInterrupt:
        return 130
    except Exception as problem:  # noqa: BLE001 - reported with the row; the other rows still run
        error = f"{type(problem).__name__}: {problem}"
        if not isinstance(problem, (MissingLibraryError, NativeError, RefusedError, WorkerError)):
            traceback.print_exc()
    answers.write(json.dumps({"measurements": measurements, "error": error}) + "\n")
    answers.flush()
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
