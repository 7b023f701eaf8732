"""Building fuzz_store.c with the sources of the core, and running it under libFuzzer, AddressSanitizer and UBSan."""

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


@functools.cache
def has_libfuzzer() -> bool:
    if shutil.which("clang") is None:
        return False
    BUILD.mkdir(parents=True, exist_ok=True)
    probe = "int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d == 0 && n > 1; }"
    command = ["clang", "-fsanitize=fuzzer,address", "-x", "c", "-", "-o", str(BUILD / "probe")]
    return subprocess.run(command, input=probe, text=True, capture_output=True, check=False).returncode == 0


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
    folder.mkdir(parents=True)
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


def start(
    program: Path, corpus: Path, seed: int, found: Path, store: Path, log: Path, *, runs: int = -1, seconds: int = 0
) -> subprocess.Popen[bytes]:
    """One process of it in a session of its own, that many inputs or seconds (-1, 0: no limit). What it says goes to `log`."""
    found.mkdir(parents=True, exist_ok=True)
    options = {
        "runs": runs,
        "max_total_time": seconds,
        "seed": seed,
        "max_len": LONGEST_INPUT,
        "timeout": SLOWEST_S,
        "detect_leaks": 0,
        "reload": 0,
        "print_final_stats": 1,
        "artifact_prefix": f"{found}/",
    }
    command = [str(program), *(f"-{name}={value}" for name, value in options.items()), str(corpus)]
    with log.open("wb") as errors:
        return subprocess.Popen(
            command,
            cwd=corpus,
            env=environment(store),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )


def said(log: Path) -> str:
    """What a process of it wrote."""
    return log.read_text(errors="replace")


def executed(text: str) -> int:
    """The inputs that were run, those of the corpus at the start among them."""
    match = re.search(r"stat::number_of_executed_units:\s*(\d+)", text)
    return int(match[1]) if match else 0


def new_inputs(text: str) -> int:
    """The inputs that were run so far, without those of the corpus at the start; while it runs, as of the last line."""
    began = re.search(r"^#(\d+)\s+INITED", text, re.MULTILINE)
    if not began:
        return 0
    last = max(int(number) for number in re.findall(r"^#(\d+)\s", text, re.MULTILINE))
    return max(last, executed(text)) - int(began[1])


def failure(program: Path, text: str) -> str:
    """What a failed process says, and how to run its input again."""
    saved = re.findall(r"Test unit written to (\S+)", text)
    again = f"ASAN_OPTIONS=detect_leaks=0 {program} {saved[-1]}" if saved else "no input was saved"
    return f"the core failed on a damaged store; again: {again}\n{text[-6000:]}"
