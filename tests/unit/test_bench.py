"""`gismo bench store`: the form and the arithmetic of its figures, what it refuses, and that it runs."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gismo_core.bench import catalog, table
from gismo_core.bench.cli import as_document, bench, choose
from gismo_core.bench.clib import MissingLibraryError, library_path, native
from gismo_core.bench.copy import GET
from gismo_core.bench.cycle import MILLION
from gismo_core.bench.group import Group
from gismo_core.bench.medium import MARGIN_BYTES, Medium, RefusedError, parse_store, refuse_if_used
from gismo_core.bench.result import Measurement, Row, judge
from gismo_core.bench.runner import Report, lacking, remove_abandoned, run, run_one

PUT = catalog.find("store.put.1MiB").rows[0]
VERSUS = catalog.find("store.vs.plasma").rows[0]
MIB = 1 << 20


def _library() -> bool:
    try:
        return library_path().exists()
    except MissingLibraryError:
        return False


needs_library = pytest.mark.skipif(not _library(), reason="libgismo_bench.so is not built: make build")


# ---- rows and ratios ----


def test_names_and_units_are_the_fixed_ones() -> None:
    units = {row.name: row.unit for group in catalog.GROUPS for row in group.rows}
    versus = {
        f"store.vs.{store}.{operation}.{size}": "us"
        for store in ("plasma", "vineyard")
        for size in ("4KiB", "1GiB")
        for operation in ("put", "get", "delete")
    }
    assert units == {
        "store.put.1GiB": "GB/s",
        "store.put.16MiB": "GB/s",
        "store.put.1MiB": "GB/s",
        "store.put.64KiB": "GB/s",
        "store.get.1GiB": "ns",
        "store.cycle.native": "us",
        "store.cycle.python": "us",
        "store.cycle.1e6": "us",
        "store.cycle.contended": "cycles/s",
        "store.cycle.contended.stopped": "cycles/s",
        "store.cycle.contended.lanes": "cycles/s",
        "store.lookup.name": "us",
        "store.recover": "ms",
        "store.recover.first": "ms",
        "store.open": "ms",
        "store.open.cold": "ms",
        "store.cycle.software": "us",
        "store.get.first.software": "GB/s",
        "store.put.software.1GiB": "GB/s",
        "store.fence": "ms",
        "store.release": "ms",
        "sim.steps_per_s": "steps/s",
        **versus,
    }


@pytest.mark.parametrize(
    ("row", "samples", "baselines", "value", "baseline", "ratio", "verdict"),
    [
        # The higher the better: the best baseline is the highest, and the ratio is value / baseline.
        (PUT, [18, 20, 19], {"memcpy": [18, 18, 18], "nt": [1, 20, 20]}, 19, 20, 0.95, "reached"),
        (PUT, [20], {"memcpy": [20]}, 20, 20, 1.0, "aim"),
        (PUT, [10], {"memcpy": [20]}, 10, 20, 0.5, "missed"),
        # The lower the better: the best baseline is the lowest, and the ratio is baseline / value.
        (VERSUS, [10, 12, 11], {"numpy": [900], "bytes": [550]}, 11, 550, 50.0, "aim"),
        (VERSUS, [10], {"numpy": [20]}, 10, 20, 2.0, "reached"),
        (VERSUS, [40], {"numpy": [20]}, 40, 20, 0.5, "missed"),
        # A quotient of what should be small: value / baseline, and small is good.
        (GET, [22], {"1 MiB": [20]}, 22, 20, 1.1, "reached"),
        (GET, [20], {"1 MiB": [20]}, 20, 20, 1.0, "aim"),
        (GET, [30], {"1 MiB": [20]}, 30, 20, 1.5, "missed"),
        # Judged by the value itself.
        (MILLION, [0.2], {}, 0.2, None, None, "aim"),
        (MILLION, [0.9], {}, 0.9, None, None, "reached"),
        (MILLION, [1.1], {}, 1.1, None, None, "missed"),
    ],
)
def test_median_best_baseline_ratio_and_verdict(
    row: Row,
    samples: list[float],
    baselines: dict[str, list[float]],
    value: float,
    baseline: float | None,
    ratio: float | None,
    verdict: str,
) -> None:
    result = judge(row, Measurement(row.name, samples, baselines))
    assert result.value == value
    assert result.baseline == baseline
    assert result.ratio == (None if ratio is None else pytest.approx(ratio))
    assert result.verdict == verdict


def test_a_row_without_samples_is_no_result() -> None:
    with pytest.raises(ValueError, match="no sample"):
        judge(PUT, Measurement(PUT.name, []))


def test_json_has_the_fixed_form() -> None:
    result = judge(PUT, Measurement(PUT.name, [1.0, 3.0, 2.0], {"memcpy": [4.0]}))
    alone = judge(MILLION, Measurement(MILLION.name, [0.5]))
    report = Report(results=[result, alone], skipped=[{"name": "x", "why": "pip install x"}])
    document = json.loads(json.dumps(as_document({"cpu": "abacus"}, report)))
    assert document["machine"] == {"cpu": "abacus"}
    assert document["results"][0] == {
        "name": "store.put.1MiB",
        "unit": "GB/s",
        "value": 2.0,
        "baseline": 4.0,
        "baseline_name": "memcpy",
        "ratio": 0.5,
        "better": "higher",
        "samples": [1.0, 3.0, 2.0],
    }
    assert document["results"][1]["baseline"] is None
    assert document["skipped"] == [{"name": "x", "why": "pip install x"}]
    assert document["failed"] == []
    assert document["baselines"] == {"store.put.1MiB": {"memcpy": [4.0]}}


def test_text_shows_the_bounds_and_what_was_not_measured() -> None:
    report = Report(
        results=[judge(PUT, Measurement(PUT.name, [1.0], {"memcpy": [4.0]}))],
        skipped=[{"name": "store.vs.plasma.put.4KiB", "why": "pip install ray"}],
        failed=[{"name": "store.open", "why": "signal 11"}],
    )
    about = {
        "cpu": "abacus",
        "cores": 2,
        "memory_bytes": 1 << 34,
        "kernel": "6",
        "medium": "directory:/dev/shm",
        "huge_pages": {"shared": "never", "mount": "tmpfs"},
        "quick": True,
    }
    text = "\n".join(table.lines(about, report))
    for part in ("abacus", "QUICK", "≥ 0.9x", "≥ 0.97x", "MISSED", "skipped: pip install ray", "FAILED: signal 11"):
        assert part in text


# ---- which rows ----


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("store.put.1*", {"store.put.1GiB", "store.put.16MiB", "store.put.1MiB"}),
        ("store.recover", {"store.recover", "store.recover.first"}),
        ("*.first", {"store.recover.first"}),
        ("lanes", {"store.cycle.contended.lanes"}),
        ("nothing", set()),
    ],
)
def test_only(pattern: str, names: set[str]) -> None:
    selected = list(catalog.select(pattern))
    assert set().union(*(wanted for _, wanted in selected)) == names
    assert all(wanted <= {row.name for row in group.rows} for group, wanted in selected)


def test_without_only_every_row_is_selected_once() -> None:
    names = [name for _, wanted in catalog.select(None) for name in wanted]
    assert len(names) == len(set(names)) == 34


def test_a_pattern_without_rows_is_wrong_usage() -> None:
    result = CliRunner().invoke(bench, ["store", "--only", "nonesuch"])
    assert result.exit_code == 2
    assert "--list" in result.output


def test_list_measures_nothing() -> None:
    result = CliRunner().invoke(bench, ["store", "--list", "--only", "get"])
    assert result.exit_code == 0
    assert "store.get.1GiB [ns]" in result.output


# ---- what is not overwritten ----


def _no_store(_: str) -> None:
    return None


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool"
    path.write_bytes(b"\0" * (3 * MARGIN_BYTES))
    return path


def _scribble(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"label")


def test_an_empty_or_absent_medium_is_taken(pool: Path, tmp_path: Path) -> None:
    refuse_if_used("file", pool, _no_store)
    refuse_if_used("file", tmp_path / "absent", _no_store)
    refuse_if_used("directory", tmp_path, _no_store)
    pool.write_bytes(b"")
    refuse_if_used("file", pool, _no_store)


def test_a_store_is_refused(pool: Path) -> None:
    with pytest.raises(RefusedError, match=r"holds a Gismo store.*--destroy"):
        refuse_if_used("file", pool, lambda _: 4096)


@pytest.mark.parametrize(
    ("offset", "where"),
    [(0, "head"), (MARGIN_BYTES - 5, "head"), (2 * MARGIN_BYTES, "tail"), (3 * MARGIN_BYTES - 5, "tail")],
)
def test_a_label_at_either_end_is_refused(pool: Path, offset: int, where: str) -> None:
    _scribble(pool, offset)
    with pytest.raises(RefusedError, match=rf"its {where} is not empty.*--destroy"):
        refuse_if_used("file", pool, _no_store)


def test_a_mapped_medium_is_refused(pool: Path) -> None:
    refused = pytest.raises(RefusedError, match=rf"mapped by process .*{os.getpid()}.*--destroy")
    with pool.open("r+b") as file, mmap.mmap(file.fileno(), 0), refused:
        refuse_if_used("file", pool, _no_store)
    refuse_if_used("file", pool, _no_store)


@pytest.mark.parametrize(
    "spec", ["dax:/dev/null", "/dev/null", "file:/dev/null", "dax:/dev/nonesuch", "/nonesuch/dir/file"]
)
def test_what_can_hold_no_store_is_refused(spec: str) -> None:
    with pytest.raises(RefusedError):
        refuse_if_used(*parse_store(spec), _no_store)


def test_kinds_of_medium(pool: Path, tmp_path: Path) -> None:
    assert parse_store(str(pool)) == ("file", pool)
    assert parse_store(f"file:{pool}") == ("file", pool)
    assert parse_store(str(tmp_path)) == ("directory", tmp_path)
    assert parse_store(str(tmp_path / "new")) == ("file", tmp_path / "new")
    with pytest.raises(RefusedError, match="not a character device"):
        parse_store(f"dax:{pool}")


def test_the_command_refuses_without_destroy(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def probe(self, spec: str) -> None:
            assert spec == f"file:{pool}"

    monkeypatch.setattr("gismo_core.bench.cli.native", Library)
    _scribble(pool, 0)
    before = pool.read_bytes()
    result = CliRunner().invoke(bench, ["store", "--store", str(pool), "--only", "store.get.1GiB", "--quick"])
    assert result.exit_code == 2
    assert "--destroy" in result.output
    assert pool.read_bytes() == before
    assert choose(str(pool), pool.parent, destroy=True) == Medium("file", pool, pool.parent, keep=True)


def test_a_medium_is_removed_or_emptied_afterwards(pool: Path, tmp_path: Path) -> None:
    def format_(spec: str) -> None:
        Path(spec.partition(":")[2]).write_bytes(b"store")

    for medium, left in (
        (Medium("directory", tmp_path, tmp_path), None),
        (Medium("file", tmp_path / "new", tmp_path), None),
        (Medium("file", pool, tmp_path, keep=True), b""),
    ):
        path = Path(medium.store_spec().partition(":")[2])
        with contextlib.suppress(ZeroDivisionError), medium.fresh(format_):
            assert path.read_bytes() == b"store"
            raise ZeroDivisionError
        assert (path.read_bytes() if path.exists() else None) == left


@pytest.mark.parametrize("spec", ["", "file:", "dax:"])
def test_no_path_is_not_the_directory_one_is_in(spec: str) -> None:
    with pytest.raises(RefusedError, match="names no path"):
        parse_store(spec)


def test_a_file_beside_a_store_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "new.alone").write_text("precious")
    medium = Medium("file", tmp_path / "new", tmp_path)
    with pytest.raises(RefusedError, match="in the way"), medium.fresh(lambda _: None, "alone"):
        pass
    assert (tmp_path / "new.alone").read_text() == "precious"


def test_the_rows_as_json() -> None:
    listed = json.loads(CliRunner().invoke(bench, ["store", "--list", "--json", "--only", "store.open*"]).output)
    assert [row["name"] for row in listed] == ["store.open", "store.open.cold"]
    assert all(row["unit"] == "ms" and row["what"] for row in listed)


def test_an_interrupted_run_says_what_it_has_measured() -> None:
    command = [sys.executable, "-m", "gismo_core", "bench", "store", "--quick", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("[3/"):
                process.send_signal(signal.SIGINT)
                break
        output, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert [row["name"] for row in json.loads(output)["results"]] == ["store.put.1GiB", "store.put.16MiB"]


# ---- what cannot run ----


def _group(**changes: Any) -> Group:
    return Group(**{"name": "g", "rows": (PUT,), "run": lambda _: (), "needs_bytes": lambda _: 0, **changes})


def test_missing_packages_and_room_are_said(tmp_path: Path) -> None:
    medium = Medium("directory", tmp_path, tmp_path)
    assert lacking(_group(), medium, quick=True) is None
    assert lacking(_group(needs_packages=("click", "no-such")), medium, quick=True) == "pip install no-such"
    why = lacking(_group(needs_bytes=lambda _: 1 << 60), medium, quick=True)
    assert why is not None
    assert str(tmp_path) in why
    assert "GiB free" in why


def test_what_is_skipped_is_never_a_result(tmp_path: Path) -> None:
    medium = Medium("directory", tmp_path, tmp_path)
    group = _group(needs_packages=("no-such",))
    [report] = run([(group, frozenset({PUT.name}))], medium, quick=True, samples=5)
    assert report == Report(skipped=[{"name": PUT.name, "why": "pip install no-such"}])


def test_a_group_that_dies_has_failed(tmp_path: Path) -> None:
    medium = Medium("directory", tmp_path, tmp_path)
    report = run_one(_group(name="unknown"), frozenset({PUT.name}), medium, quick=True, samples=5)
    assert report.results == []
    assert [entry["name"] for entry in report.failed] == [PUT.name]


def test_what_a_killed_run_left_is_removed_and_a_living_one_is_not(tmp_path: Path) -> None:
    old = time.time() - 60
    for name in ("gismo-bench-dead", "gismo-bench-alive", "gismo-bench-new", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "store").touch()
        os.utime(tmp_path / name, (old, old))
    os.utime(tmp_path / "gismo-bench-new")
    lock = os.open(tmp_path / "gismo-bench-alive", os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_abandoned(tmp_path)
    finally:
        os.close(lock)
    assert {path.name for path in tmp_path.iterdir()} == {"gismo-bench-alive", "gismo-bench-new", "other"}


# ---- the real thing ----


@pytest.fixture
def work() -> Iterator[Path]:
    """A directory on tmpfs, in which nothing may be left."""
    path = Path(f"/dev/shm/gismo-test-bench-{os.getpid()}")
    path.mkdir()
    yield path
    left = list(path.iterdir())
    for entry in left:
        entry.unlink()
    path.rmdir()
    assert left == []


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from gismo_core.bench.cli import bench; bench()", "store", "--quick", *arguments]


def _measure(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(_command("--json", *arguments), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _work_directory(pid: int) -> Path | None:
    """That of a running benchmark, which has it open."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = Path(os.readlink(fd))
            if target.name.startswith("gismo-bench-"):
                return target
    return None


@needs_library
@pytest.mark.parametrize("name", ["store.put.64KiB", "store.get.1GiB", "store.cycle.native", "store.cycle.python"])
def test_quick_rows_run(name: str, work: Path) -> None:
    document = _measure("--only", name, "--store", str(work))
    [result] = document["results"]
    assert result["name"] == name
    assert len(result["samples"]) >= 5
    assert min(result["samples"]) > 0
    assert document["skipped"] == document["failed"] == []
    assert document["machine"]["quick"] is True
    if name.startswith("store.put"):
        medians = document["baselines"][name]
        assert result["baseline_name"] in medians
        assert result["ratio"] == pytest.approx(result["value"] / result["baseline"])


@needs_library
def test_quick_recovery_runs(work: Path) -> None:
    document = _measure("--only", "store.recover", "--store", str(work))
    assert {result["name"] for result in document["results"]} == {"store.recover", "store.recover.first"}


@needs_library
def test_a_real_store_is_refused_and_destroyed_only_when_told(work: Path) -> None:
    path = work / "pool"
    native().format(f"file:{path}", 64 * MIB)
    before = path.read_bytes()
    refused = subprocess.run(
        _command("--only", "store.recover.first", "--store", str(path)), capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 2
    assert "--destroy" in refused.stderr
    assert path.read_bytes() == before
    document = _measure("--only", "store.recover.first", "--store", str(path), "--destroy")
    assert len(document["results"]) == 1
    assert path.stat().st_size == 0
    path.unlink()


@needs_library
def test_what_lies_in_a_directory_is_left_alone(work: Path) -> None:
    for name in ("store", "store.alone"):
        (work / name).write_text("precious")
    _measure("--only", "store.cycle.native", "--store", str(work))
    for name in ("store", "store.alone"):
        assert (work / name).read_text() == "precious"
        (work / name).unlink()


@needs_library
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_an_interruption(number: signal.Signals) -> None:
    process = subprocess.Popen(
        _command("--only", "store.cycle.contended"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while (work := _work_directory(process.pid)) is None or not list(work.glob("store*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(timeout=30) != 0
    finally:
        process.kill()
        process.wait()
    assert not work.exists()


@needs_library
@pytest.mark.skipif(importlib.util.find_spec("vineyard") is None, reason="pip install vineyard vineyard-bdist")
def test_quick_vineyard_runs(work: Path) -> None:
    document = _measure("--only", "store.vs.vineyard.*.4KiB", "--store", str(work))
    assert len(document["results"]) == 3
