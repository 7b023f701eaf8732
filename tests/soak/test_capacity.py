"""How much fits: every size, a million objects, little waste, and as much after a refill as before (capacity.c)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import gismo_core

ROOT = Path(__file__).resolve().parents[2]
MiB = 1024**2


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = ROOT / "gismo_core/_lib/libgismo.so"
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    made = tmp_path_factory.mktemp("capacity") / "capacity"
    flags = ["-std=gnu17", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{ROOT / 'gismo_core/native'}"]
    source = Path(__file__).with_name("capacity.c")
    command = ["gcc", *flags, str(source), str(library), f"-Wl,-rpath,{library.parent}", "-lm", "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gismo-capacity-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


def run(program: Path, place: Path, *words: str) -> list[str]:
    command = [str(program), str(place / "pool"), str(place / "state"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("size", [1 * MiB, 8 * MiB, 64 * MiB, 1024 * MiB])
def test_from_one_byte_to_the_whole_data_area(program: Path, place: Path, size: int) -> None:
    gismo_core.format(place / "pool", size=size)
    assert run(program, place, "edges") == [str(gismo_core.probe(place / "pool").data_bytes)]


def test_a_million_objects(program: Path, place: Path) -> None:
    gismo_core.format(place / "pool", size=512 * MiB, max_objects=1_000_000 + 64 * 64)
    assert run(program, place, "million") == ["1000000"]


def test_waste_inside_extents(program: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gismo_core.format(place / "pool", size=256 * MiB)
    *chunks, last = run(program, place, "waste")
    share, size = last.split()
    with capsys.disabled():
        print(f"\n  capacity: at most {100 * float(share):.1f} % of an extent is waste above 4 KiB (at {size} bytes)")
    assert float(share) <= 0.125
    assert all(float(line.split()[2]) <= 0.125 for line in chunks)


@pytest.mark.parametrize(("size", "largest", "least"), [(256 * MiB, 1_000_000, 0.98), (64 * MiB, 200_000, 0.98)])
def test_filled_emptied_and_filled_again(
    program: Path, place: Path, capsys: pytest.CaptureFixture[str], size: int, largest: int, least: float
) -> None:
    gismo_core.format(place / "pool", size=size)
    (line,) = run(program, place, "refill", str(largest))
    data, first, second, third, _, slots = map(int, line.split())
    with capsys.disabled():
        print(
            f"\n  capacity: {size // MiB} MiB, sizes up to {largest}: {100 * first / data:.1f} % of the data area; emptied "
            f"and filled again {100 * second / first:.1f} % of that; a random half changed {100 * third / first:.1f} %"
        )
    assert first >= 0.9 * data
    assert slots > 0
    assert second >= least * first
    assert third >= 0.85 * first


@pytest.mark.parametrize(
    ("size", "bytes_each"),
    [
        (64 * MiB, 0),
        (256 * MiB, 0),
        (64 * MiB, 1 * MiB),
        (64 * MiB, 5000),
    ],
)
def test_full_means_full(program: Path, place: Path, size: int, bytes_each: int) -> None:
    """Two processes of each of two hosts: nobody is refused while a tenth of the pool is free in pieces that fit."""
    gismo_core.format(place / "pool", size=size)
    pool = gismo_core.probe(place / "pool").data_bytes
    running = [
        subprocess.Popen(
            [str(program), str(place / "pool"), str(place / f"state-{i % 2}"), "fill", str(bytes_each), str(i + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(4)
    ]
    try:
        lines = []
        for process in running:
            assert process.stdout is not None
            lines.append(process.stdout.readline())
        total = 0
        for line in lines:
            put, asked, free, largest, slots = map(int, line.split())
            total += put
            assert not (free > 0.1 * pool and largest >= asked and slots > 0), line
        assert total >= 0.75 * pool, lines
    finally:
        for process in running:
            process.communicate("\n", timeout=60)
