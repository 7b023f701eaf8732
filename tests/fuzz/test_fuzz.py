"""Damaged stores: fuzz_store.c under libFuzzer, AddressSanitizer and UBSan.

10^5 inputs in `make test`, 10^7 in `make test-long`. An input that fails stays in build/fuzz/found; the message says
how to run it again. `test_the_fuzzer_finds_a_planted_bug` shows that the check can fail.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "fuzz"
CORE = ROOT / "gismo_core" / "native"
BUILD = ROOT / "build" / "fuzz"

FLAGS = [
    "-std=gnu17",
    "-O2",
    "-g",
    "-D_GNU_SOURCE=",
    '-DGISMO_VERSION="fuzz"',
    "-D__SANITIZE_ADDRESS__=1",  # as gcc says it; clang does not
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fno-omit-frame-pointer",
    "-fsanitize=fuzzer,address,undefined",
    "-fno-sanitize-coverage=trace-cmp",  # inputs are choices, not values to guess; and it costs a fifth
    "-fno-sanitize-recover=all",
    f"-fsanitize-ignorelist={HERE / 'ignore.txt'}",
    "-pthread",
    f"-I{CORE}",
    "-include",
    str(HERE / "simulated.h"),
]
ENVIRONMENT = {
    # A truncated medium is answered by a jump out of the middle, which may leave a few bytes of malloc behind.
    "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=8:abort_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
}
LONGEST_INPUT = 256
SLOWEST_S = 20

pytestmark = pytest.mark.fuzz


@functools.cache
def has_libfuzzer() -> bool:
    if shutil.which("clang") is None:
        return False
    BUILD.mkdir(parents=True, exist_ok=True)
    probe = "int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d == 0 && n > 1; }"
    command = ["clang", "-fsanitize=fuzzer,address", "-x", "c", "-", "-o", str(BUILD / "probe")]
    return subprocess.run(command, input=probe, text=True, capture_output=True, check=False).returncode == 0


@pytest.fixture(autouse=True, scope="module")
def _clang() -> None:
    if not has_libfuzzer():
        pytest.skip("clang is not installed" if shutil.which("clang") is None else "clang has no libFuzzer here")


@functools.cache
def target(*defines: str) -> Path:
    """The fuzzing program; built again when one of its sources changes."""
    sources = sorted(p for p in CORE.glob("*.c") if not p.name.endswith(("_sim.c", "_fast.c")))
    sources.append(HERE / "fuzz_store.c")
    digest = hashlib.sha256(repr([FLAGS, defines]).encode())
    for path in [*sources, *sorted(CORE.glob("*.h")), HERE / "simulated.h", HERE / "ignore.txt"]:
        digest.update(path.name.encode() + path.read_bytes())
    program = BUILD / f"fuzz-{digest.hexdigest()[:16]}"
    if not program.exists():
        for old in BUILD.glob("fuzz-*"):
            if time.time() - old.stat().st_mtime > 86400:
                old.unlink()
        making = program.with_suffix(".new")
        command = ["clang", *FLAGS, *defines, *map(str, sources), "-o", str(making)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        making.rename(program)
    return program


def make_seeds(folder: Path, seed: int) -> None:
    """Inputs to begin with: image, flags, mutations, then each operation some times."""
    rng = random.Random(seed)
    folder.mkdir()
    for n in range(220):
        flags = rng.choice([0, 0, 8, 24, 64, 32, 128, 1, 2, rng.randrange(256)])
        mutations = rng.choice([0, 0, 1, 1, 2, 4, 8])
        body = bytearray([n % 4, flags, mutations])
        body += rng.randbytes(mutations * 8)
        for _ in range(rng.randrange(20)):
            body += bytes([rng.randrange(22), rng.randrange(256)])
            if body[-2] in (7, 8, 9, 10):
                body += rng.randbytes(2)
        (folder / f"seed-{n}").write_bytes(bytes(body[:LONGEST_INPUT]))
    for known in (HERE / "found").iterdir():
        shutil.copy(known, folder)


@contextlib.contextmanager
def stores() -> Iterator[Path]:
    """A folder in memory for the stores under test, gone afterwards also when the program crashed."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="gismo-fuzz-", dir=shm if os.access(shm, os.W_OK) else None) as folder:
        yield Path(folder)


def environment(folder: Path) -> dict[str, str]:
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GISMO_")}
    return {**kept, **ENVIRONMENT, "FUZZ_FOLDER": str(folder)}


def start(program: Path, corpus: Path, runs: int, seed: int, found: Path, store: Path) -> subprocess.Popen[str]:
    found.mkdir(parents=True, exist_ok=True)
    options = {
        "runs": runs,
        "seed": seed,
        "max_len": LONGEST_INPUT,
        "timeout": SLOWEST_S,
        "detect_leaks": 0,
        "reload": 0,
        "print_final_stats": 1,
        "artifact_prefix": f"{found}/",
    }
    command = [str(program), *(f"-{name}={value}" for name, value in options.items()), str(corpus)]
    return subprocess.Popen(
        command, cwd=corpus, env=environment(store), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        errors="replace",
    )  # fmt: skip


def units(log: str) -> int:
    match = re.search(r"stat::number_of_executed_units:\s*(\d+)", log)
    return int(match[1]) if match else 0


def fuzz(program: Path, folder: Path, cases: int, capsys: pytest.CaptureFixture[str]) -> None:
    """That many cases over the processors that there are."""
    workers = min(os.cpu_count() or 1, 8)
    found = BUILD / "found"
    began = time.monotonic()
    running = []
    with stores() as memory:
        for i in range(workers):
            make_seeds(folder / f"corpus-{i}", i)
            runs = -(-cases // workers)
            running.append(start(program, folder / f"corpus-{i}", runs, i + 1, found, memory / f"{i}"))
        logs = [process.communicate()[1] for process in running]
    seconds = time.monotonic() - began
    for process, log in zip(running, logs, strict=True):
        if process.returncode:
            saved = re.findall(r"Test unit written to (\S+)", log)
            again = f"ASAN_OPTIONS=detect_leaks=0 {program} {saved[-1]}" if saved else "no input was saved"
            pytest.fail(f"the core failed on a damaged store; again: {again}\n{log[-6000:]}", pytrace=False)
    total = sum(map(units, logs))
    with capsys.disabled():
        print(f"\n  fuzz: {total} cases in {seconds:.0f} s, {total / seconds:.0f} a second, {workers} processes")
    assert total >= cases


@pytest.mark.parametrize("name", sorted(p.name for p in (HERE / "found").iterdir()))
def test_what_was_found_stays_mended(name: str) -> None:
    """Inputs on which the core once failed."""
    command = [str(target()), "-detect_leaks=0", str(HERE / "found" / name)]
    with stores() as memory:
        env = environment(memory / "0")
        again = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace", check=False)
    assert again.returncode == 0, again.stderr[-6000:]


def test_damaged_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fuzz(target(), tmp_path, 100_000, capsys)


@pytest.mark.long
def test_many_damaged_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fuzz(target(), tmp_path, 10_000_000, capsys)


def test_the_fuzzer_finds_a_planted_bug(tmp_path: Path) -> None:
    """A target that believes a slot's offset and length: found within some thousand cases, and the input saved."""
    make_seeds(tmp_path / "corpus", 0)
    found = tmp_path / "found"
    with stores() as memory:
        planted = target("-DFUZZ_SELFTEST")
        process = start(planted, tmp_path / "corpus", 20_000, 1, found, memory / "0")
        log = process.communicate()[1]
    assert process.returncode != 0, "the planted bug was not found"
    assert "AddressSanitizer" in log
    inputs = list(found.glob("crash-*"))
    assert inputs
    assert crashes(planted, inputs[0])
    assert not crashes(target(), inputs[0]), "what was found is another bug, not the planted one"


def crashes(program: Path, found: Path) -> bool:
    with stores() as memory:
        command = [str(program), "-detect_leaks=0", str(found)]
        ran = subprocess.run(command, env=environment(memory / "0"), capture_output=True, check=False)
    return ran.returncode != 0
