"""Damaged stores: fuzz_store.c under libFuzzer, AddressSanitizer and UBSan.

10^5 inputs in `make test`, 10^7 in `make test-long`. An input that fails stays in build/fuzz/found; the message says
how to run it again. `test_the_fuzzer_finds_a_planted_bug` shows that the check can fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from fuzz import fuzzing

pytestmark = pytest.mark.fuzz


@pytest.fixture(autouse=True, scope="module")
def _clang() -> None:
    if not fuzzing.has_libfuzzer():
        pytest.skip("clang is not installed" if shutil.which("clang") is None else "clang has no libFuzzer here")


def fuzz(folder: Path, cases: int, capsys: pytest.CaptureFixture[str]) -> None:
    """That many cases over the processors that there are."""
    program = fuzzing.target()
    workers = min(os.cpu_count() or 1, 8)
    runs = -(-cases // workers)
    logs = [folder / f"log-{i}" for i in range(workers)]
    began = time.monotonic()
    with fuzzing.stores() as memory:
        running: list[subprocess.Popen[bytes]] = []
        try:
            for i, log in enumerate(logs):
                corpus = memory / f"corpus-{i}"  # a disk costs a fifteenth of the time
                fuzzing.make_seeds(corpus, i)
                found = fuzzing.BUILD / "found"
                running.append(fuzzing.start(program, corpus, i + 1, found, memory / f"{i}", log, runs=runs))
            for process in running:
                process.wait()
        finally:
            for process in running:  # at a time-out or Ctrl-C
                if process.poll() is None:
                    process.kill()
                    process.wait()
    seconds = time.monotonic() - began
    for process, log in zip(running, logs, strict=True):
        if process.returncode:
            pytest.fail(fuzzing.failure(program, fuzzing.said(log)), pytrace=False)
    total = sum(fuzzing.executed(fuzzing.said(log)) for log in logs)
    with capsys.disabled():
        print(f"\n  fuzz: {total} cases in {seconds:.0f} s, {total / seconds:.0f} a second, {workers} processes")
    assert total >= cases


@pytest.mark.parametrize("name", sorted(p.name for p in (fuzzing.HERE / "found").iterdir()))
def test_what_was_found_stays_mended(name: str) -> None:
    """Inputs on which the core once failed."""
    command = [str(fuzzing.target()), "-detect_leaks=0", str(fuzzing.HERE / "found" / name)]
    with fuzzing.stores() as memory:
        env = fuzzing.environment(memory / "0")
        again = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace", check=False)
    assert again.returncode == 0, again.stderr[-6000:]


def test_damaged_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fuzz(tmp_path, 100_000, capsys)


@pytest.mark.long
def test_many_damaged_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fuzz(tmp_path, 10_000_000, capsys)


def test_the_fuzzer_finds_a_planted_bug(tmp_path: Path) -> None:
    """A target that believes a slot's offset and length: found within some thousand cases, and the input saved."""
    fuzzing.make_seeds(tmp_path / "corpus", 0)
    found = tmp_path / "found"
    with fuzzing.stores() as memory:
        planted = fuzzing.target("-DFUZZ_SELFTEST")
        log = tmp_path / "log"
        process = fuzzing.start(planted, tmp_path / "corpus", 1, found, memory / "0", log, runs=20_000)
        process.wait()
    assert process.returncode != 0, "the planted bug was not found"
    assert "AddressSanitizer" in fuzzing.said(log)
    inputs = list(found.glob("crash-*"))
    assert inputs
    assert crashes(planted, inputs[0])
    assert not crashes(fuzzing.target(), inputs[0]), "what was found is another bug, not the planted one"


def crashes(program: Path, found: Path) -> bool:
    with fuzzing.stores() as memory:
        command = [str(program), "-detect_leaks=0", str(found)]
        ran = subprocess.run(command, env=fuzzing.environment(memory / "0"), capture_output=True, check=False)
    return ran.returncode != 0
