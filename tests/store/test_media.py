"""The medium fails under a living process: cut short, or its file system is full. A typed error, and the process lives."""

from __future__ import annotations

import os
import signal
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


FULL = """
import os, sys
import gismo_core

folder, case = sys.argv[1:]
path = folder + "/pool"
gismo_core.format(path, size=64 << 20, populate=False)
store = gismo_core.open(path, state_dir=sys.argv[1] + "-state")
first = store.put(b"there before", name="first")
with open(folder + "/ballast", "wb") as ballast:
    os.posix_fallocate(ballast.fileno(), 0, os.statvfs(folder).f_bavail * 4096 - (2 << 20))


def buffer() -> None:
    with store.create(8 << 20) as draft:
        draft.buffer[:] = bytes(8 << 20)
        draft.seal()


def unwritten() -> None:
    view = store.get(store.create(8 << 20).seal())
    assert sum(view.data) == 0


def small() -> None:
    for _ in range(3000):
        with store.create(4000) as draft:
            draft.buffer[:] = bytes(4000)
            draft.seal()


def put() -> None:
    store.put(bytes(8 << 20))


def fill() -> None:
    with store.create(8 << 20) as draft:
        draft.fill([bytes(8 << 20)])
        draft.seal()


for _ in range(2):
    try:
        globals()[case]()
        print("no error")
    except gismo_core.MediaError as error:
        print("MediaError", error.errno)
os.unlink(folder + "/ballast")
globals()[case]()  # nothing is broken: with room it goes on
assert bytes(store.get(first)) == b"there before"
report = store.fsck(verify=True)
assert report.ok and not report.leaked_bytes, report
store.close()
print("alive")
"""


@pytest.mark.parametrize("case", ["buffer", "unwritten", "small", "put", "fill"])
def test_a_store_whose_file_system_is_full(shm: Path, case: str) -> None:
    """A store made without populating it. Its own stores to a draft would kill the process: create has to say it."""
    folder = shm / "mounted"
    folder.mkdir()
    script = 'mount -t tmpfs -o size=40m tmpfs "$1" || exit 77; exec "$3" -c "$4" "$1" "$2"'
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-r", "-m"]
    words = [*unshare, "bash", "-c", script, "bash", str(folder), case, sys.executable, FULL]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("cannot mount a tmpfs here")
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert done.stdout.split() == ["MediaError", "28", "MediaError", "28", "alive"]


CUT_DRAFT = """
import os, sys
import gismo_core

store = gismo_core.open(sys.argv[1], state_dir=sys.argv[2])
draft = store.create(8 << 20)
os.truncate(sys.argv[1], 4096)
for call in (lambda: draft.fill([bytes(8 << 20)]), lambda: draft.fill([b"few"]), lambda: draft.write(0, b"few")):
    try:
        call()
    except gismo_core.MediaError:
        print("MediaError")
print("alive", flush=True)
os._exit(0)
"""


def test_what_the_core_copies_into_a_draft(store_path: str, shm: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    words = [sys.executable, "-c", CUT_DRAFT, store_path, str(shm / "state")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert done.stdout.split() == ["MediaError"] * 3 + ["alive"]


READ_CUT = """
import faulthandler, os, sys
import gismo_core

path, state, left, order, name = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]
if order == "before":
    faulthandler.enable()
store = gismo_core.open(path, state_dir=state)
store.put(bytes(1 << 20))
handle = store.put(bytes(1 << 20), name=name or None)
if order == "after":
    faulthandler.enable()
view = memoryview(store.get(handle))
print(handle.slot, handle.generation, handle.offset, flush=True)
os.truncate(path, handle.offset + left if left else 4096)
view[900_000]
print("alive")
"""


@pytest.mark.parametrize("order", ["never", "before", "after"])
@pytest.mark.parametrize(
    ("left", "name", "object_said"),
    [
        (4096, "", "byte 900000 of the 1048576 of object slot {slot} generation {generation}: it was cut short"),
        (4096, "lost", "byte 900000 of the 1048576 of object slot {slot} generation {generation}: it was cut short"),
        (0, "", "; which object that is cannot be read any more: it was cut short"),
    ],
    ids=["an object", "with its name", "with its tables"],
)
def test_code_outside_the_core_that_reads_what_is_gone(
    store_path: str, shm: Path, order: str, left: int, name: str, object_said: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    words = [sys.executable, "-c", READ_CUT, store_path, str(shm / "state"), str(left), order, name]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGBUS, (done.returncode, done.stdout, done.stderr)
    slot, generation, offset = done.stdout.split()
    told = [line for line in done.stderr.splitlines() if line.startswith("gismo: ")]
    assert len(told) == 1, done.stderr
    assert f"SIGBUS: {store_path} has no memory any more at byte {int(offset) + 900_000}" in told[0]
    assert object_said.format(slot=slot, generation=generation) in told[0]
    assert ("Fatal Python error: Bus error" in done.stderr) == (order != "never")
