"""Two PID namespaces whose processes have the same pids and thread ids share one host's store, and are killed at random."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from crash.conftest import Crash

NOT_PERMITTED = 77
WORKERS = 4


def share(crash: Crash, seconds: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("making PID namespaces needs root")
    folder = tempfile.mkdtemp(prefix="gismo-crash-", dir="/dev/shm")
    try:
        ran = subprocess.run(
            [crash.program, "namespaces", f"{folder}/case", str(seconds * 1000)],
            capture_output=True,
            text=True,
            timeout=seconds + 120,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if ran.returncode == NOT_PERMITTED:
        pytest.skip(ran.stdout.strip())
    print("\n" + ran.stdout.strip())
    assert ran.returncode == 0, ran.stdout + ran.stderr
    words = ran.stdout.split()
    figures = dict(zip(words[0:14:2], map(int, words[1:14:2]), strict=True))
    assert figures["same"] == WORKERS, "the processes of the two namespaces should have equal pids"
    assert figures["background"] == WORKERS, "and their threads equal ids"
    assert figures["kills"] >= 10 * seconds
    assert figures["recovered"] > 0
    assert figures["operations"] > 1000


@pytest.mark.root
def test_two_namespaces(crash: Crash) -> None:
    share(crash, 10)


@pytest.mark.root
@pytest.mark.long
def test_two_namespaces_for_long(crash: Crash) -> None:
    share(crash, 300)
