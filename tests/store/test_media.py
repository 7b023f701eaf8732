"""The medium fails under a living process: cut short, or its file system is full. A typed error, and the process lives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MiB = 1024**2

CUT = """
import os, sys, time
import gismo_core

path, state, left, idle_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
store = gismo_core.open(path, state_dir=state)
handle = store.put(bytes(1 << 20), name="n")
os.truncate(path, left)
time.sleep(idle_s)
for call in (
    lambda: store.put(bytes(1 << 20)),
    lambda: store.get(handle).verify(),
    lambda: store.stats(),
    lambda: list(store.objects()),
    lambda: store.lookup("n"),
    lambda: store.fsck(verify=True),
    lambda: store.delete(handle),
):
    try:
        call()
    except gismo_core.GismoError as error:
        print(type(error).__name__)
time.sleep(idle_s)
store.close()
print("alive")
"""


@pytest.mark.parametrize("idle_s", [0, 2.5], ids=["at once", "after the background thread met it"])
@pytest.mark.parametrize("left", [0, 4096, 2 * MiB])
def test_a_store_that_is_cut_short(store_path: str, shm: Path, left: int, idle_s: float) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    words = [sys.executable, "-c", CUT, store_path, str(shm / "state"), str(left), str(idle_s)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    *errors, last = done.stdout.split()
    assert last == "alive"
    assert set(errors) == {"MediaError"}
