"""A cluster of one node as `ray start --head` makes it, with ports of its own, ended with all its processes."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ports
import ray_pool
from gismo_core.bench import ray_logs


@dataclass(frozen=True, slots=True)
class Head:
    """Where it is to be reached."""

    address: str  # of GCS
    dashboard: str  # http://…; nothing there unless it was asked for
    metrics_port: int


@contextlib.contextmanager
def running(
    environment: dict[str, str],
    folder: Path,
    *,
    python: Path | str = sys.executable,
    dashboard: bool = False,
    start_s: float = 2 * ray_pool.RAYLET_START_S,
) -> Iterator[Head]:
    """Start it and wait until it says that it runs."""
    gcs, client, board, agent, metrics = ports.free(5)
    arguments = [
        "--head", f"--port={gcs}", f"--ray-client-server-port={client}", f"--include-dashboard={dashboard}",
        f"--dashboard-port={board}", f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}",
        "--disable-usage-stats",
    ]  # fmt: skip
    with _started(arguments, environment, folder, python, start_s) as said:
        found = re.search(r"--address='([^']+)'", said) or re.search(r"Local node IP: (\S+)", said)
        assert found is not None, said
        address = found[1] if ":" in found[1] else f"{found[1]}:{gcs}"
        yield Head(address, f"http://127.0.0.1:{board}", metrics)


@contextlib.contextmanager
def another_node(
    head: Head,
    environment: dict[str, str],
    folder: Path,
    *,
    python: Path | str = sys.executable,
    start_s: float = 2 * ray_pool.RAYLET_START_S,
) -> Iterator[None]:
    """One more node of a cluster, as `ray start --address` makes it."""
    agent, metrics = ports.free(2)
    arguments = [
        f"--address={head.address}", f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}",
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with _started(arguments, environment, folder, python, start_s):
        yield


@contextlib.contextmanager
def _started(
    arguments: list[str], environment: dict[str, str], folder: Path, python: Path | str, start_s: float
) -> Iterator[str]:
    process, said = _start(arguments, environment, folder, python, start_s)
    try:
        yield said
    finally:
        ray_pool.end_session(process)


class _NotUpError(RuntimeError):
    pass


def _start(
    arguments: list[str], environment: dict[str, str], folder: Path, python: Path | str, start_s: float
) -> tuple[subprocess.Popen[bytes], str]:
    """`ray start`, a second time if Ray does not come up (see RAYLET_START_S): the process, and what it said."""
    try:
        return _start_once(arguments, environment, folder, python, start_s)
    except _NotUpError as error:
        print(f"once more, for {error}", file=sys.stderr)
        return _start_once(arguments, environment, folder, python, start_s)


def _start_once(
    arguments: list[str], environment: dict[str, str], folder: Path, python: Path | str, start_s: float
) -> tuple[subprocess.Popen[bytes], str]:
    command = [
        str(python), "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=2",
        f"--object-store-memory={100 << 20}", *arguments,
    ]  # fmt: skip
    log = folder / "ray-start.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    end = time.monotonic() + start_s
    try:
        while "Ray runtime started" not in (said := log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > end:
                last = ray_logs.said_last(Path(environment["RAY_TMPDIR"]) / "ray")
                raise _NotUpError(f"ray start did not come up:\n{said[-3000:]}\n{last}")
            time.sleep(0.1)
    except BaseException:
        ray_pool.end_session(process)
        raise
    return process, said
