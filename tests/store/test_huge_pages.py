"""A store on hugetlbfs, where nothing smaller than a page of 2 MiB can be protected or made writable."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gismo_core
from gismo_core.testing import eventually, pattern

MiB = 1024**2
PAGES = 40
RESERVED = Path("/proc/sys/vm/nr_hugepages")

pytestmark = pytest.mark.root


def free_pages() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("HugePages_Free:")), 0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("no hugetlbfs: only root can mount it")
    before = int(RESERVED.read_text()) if RESERVED.exists() else 0
    mounted = tmp_path / "huge"
    mounted.mkdir()
    try:
        with contextlib.suppress(OSError):
            RESERVED.write_text(str(before + PAGES))
        if free_pages() < PAGES:
            pytest.skip("no hugetlbfs: the kernel gives no pages of 2 MiB")
        command = ["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", str(mounted)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no hugetlbfs: it cannot be mounted here")
        try:
            yield mounted
        finally:
            subprocess.run(["umount", str(mounted)], check=True)
    finally:
        with contextlib.suppress(OSError):
            RESERVED.write_text(str(before))


CHILD = """
import sys, gismo_core
store = gismo_core.open(sys.argv[1])
for line in sys.stdin:
    name, length = line.split()
    view = store.get(store.lookup(name))
    assert len(view) == int(length), len(view)
    store.put(bytes(view), name=name + "-again")
    print("done", flush=True)
"""


def test_two_processes_and_a_death(folder: Path) -> None:
    path = f"{folder}/pool"
    gismo_core.format(path, size=64 * MiB)
    command = [sys.executable, "-c", CHILD, path]
    with gismo_core.open(path) as store:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            for number, nbytes in enumerate((1, 4096, 100_003, 3 * MiB + 5, 9 * MiB)):
                value = pattern(nbytes, number)
                store.put(value, name=f"n{number}")
                child.stdin.write(f"n{number} {nbytes}\n")
                child.stdin.flush()
                assert child.stdout.readline() == "done\n"
                with store.get(store.lookup(f"n{number}-again")) as view:
                    assert bytes(view) == value
            child.send_signal(signal.SIGKILL)
        eventually(lambda: store.stats().processes == 1, "the dead process is recovered")
        draft = store.create(2 * MiB)
        draft.buffer[:] = bytes(2 * MiB)
        store.delete(draft.seal())
        report = store.fsck(verify=True)
        assert report.ok, report.findings
        assert store.stats().sealed_objects == 10
