"""Processes of two hosts on one store, killed and stopped at random (soak.c): 30 s here.

`SOAK_SECONDS=7200 make test ARGS='-k soak'` soaks for two hours; in `make test-long` it is ten minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gismo_core

ROOT = Path(__file__).resolve().parents[2]
MiB = 1024**2


def compiled(source: Path, folder: Path, *defines: str) -> Path:
    """A C program over the built library."""
    library = ROOT / "gismo_core/_lib/libgismo.so"
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    program = folder / source.stem
    flags = ["-std=gnu17", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{ROOT / 'gismo_core/native'}"]
    command = [
        "gcc",
        *flags,
        *defines,
        str(source),
        str(library),
        f"-Wl,-rpath,{library.parent}",
        "-lm",
        "-o",
        str(program),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gismo-soak-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


def soak(place: Path, seconds: int, seed: int, **options: Any) -> dict[str, Any]:
    program = compiled(Path(__file__).with_name("soak.c"), place)
    gismo_core.format(place / "pool", size=64 * MiB, **options)
    words = [str(program), str(place / "pool"), str(place / "a"), str(place / "b"), str(seconds), str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 120, check=False)
    if done.returncode:
        pytest.fail(f"seed {seed}: ended with {done.returncode}\n{done.stdout}\n{done.stderr[-6000:]}", pytrace=False)
    result: dict[str, Any] = json.loads(done.stdout)
    # A store that was formatted a moment ago has as much room, but for the tables of names of the two hosts.
    with gismo_core.open(place / "pool", state_dir=place / "a") as store:
        after = store.stats()
    assert (after.sealed_objects, after.writing_objects, after.deleted_objects) == (0, 0, 0)
    tables = 32 * 1024
    assert after.used_bytes % tables == 0
    return result


def say(capsys: pytest.CaptureFixture[str], result: dict[str, Any]) -> None:
    with capsys.disabled():
        print(
            f"\n  soak: {result['seconds']:.0f} s, {result['operations']} operations, {result['kills']} kills "
            f"({result['host_kills']} of a whole host), {result['stops']} stops survived, "
            f"{result['checked_bytes'] / 1e9:.1f} GB checked, {result['lost_bytes']} bytes lost"
        )


@pytest.mark.timeout(0)
@pytest.mark.parametrize("coherence", ["hardware", "software"])
def test_soak(place: Path, capsys: pytest.CaptureFixture[str], coherence: str) -> None:
    seconds = int(os.environ.get("SOAK_SECONDS", "0")) or (22 if coherence == "hardware" else 8)
    result = soak(place, seconds, seed=os.getpid(), coherence=coherence)
    say(capsys, result)
    assert result["kills"] >= seconds
    assert result["recovered_processes"] >= result["kills"] * 0.9
    assert result["operations"] > 200 * seconds


@pytest.mark.long
@pytest.mark.timeout(0)
def test_long_soak(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say(capsys, soak(place, int(os.environ.get("SOAK_SECONDS", "600")), seed=os.getpid()))


def test_a_changed_payload_is_seen(place: Path) -> None:
    """The check can fail: with -DSOAK_SELFTEST a worker changes one bit in 1 of 64 payloads after sealing them."""
    program = compiled(Path(__file__).with_name("soak.c"), place, "-DSOAK_SELFTEST")
    gismo_core.format(place / "pool", size=64 * MiB)
    words = [str(program), str(place / "pool"), str(place / "a"), str(place / "b"), "20", "1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "wrong at" in done.stderr
