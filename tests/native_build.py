"""Builds the programs of tests/native and tests/sim with CMake, each variant of the core in a folder of its own."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Name to the CMake options of gismo_core/native/CMakeLists.txt.
VARIANTS = {
    "plain": [],
    "asan": ["-DGISMO_SANITIZE=address,undefined"],
    "tsan": ["-DGISMO_SANITIZE=thread"],
    "sites": ["-DGISMO_SITES=ON"],
}


def run_checked(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}", pytrace=False)


def cmake() -> str:
    beside = Path(sys.executable).with_name("cmake")
    return str(beside) if beside.exists() else "cmake"


@functools.cache
def configured(variant: str) -> Path:
    """The build folder of a variant; kept between runs, so that only what changed is built again."""
    folder = ROOT / "build" / f"native-{variant}"
    options = ["-DGISMO_TESTS=ON", *VARIANTS[variant]]
    run_checked([cmake(), "-S", str(ROOT / "gismo_core/native"), "-B", str(folder), "-G", "Unix Makefiles", *options])
    return folder


@contextlib.contextmanager
def alone(variant: str) -> Iterator[None]:
    """Several runners of tests share the folders: one builds, the others find that there is nothing to do."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / f"native-{variant}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def built(variant: str, name: str) -> Path:
    """The program of that name, up to date."""
    with alone(variant):
        folder = configured(variant)
        run_checked([cmake(), "--build", str(folder), "--parallel", str(os.cpu_count() or 1), "--target", name])
    return folder / name
