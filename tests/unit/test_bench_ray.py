"""`gismo bench ray`: its rows, the arithmetic of intervals, and what is kept apart between the two clusters."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from gismo_core.bench import catalog
from gismo_core.bench.cli import bench
from gismo_core.bench.clusters import processes, side
from gismo_core.bench.clusters.samples import Samples
from gismo_core.bench.clusters.shape import Shape
from gismo_core.bench.clusters.side import GISMO, STOCK, Side
from gismo_core.bench.result import Measurement, Row, interval_of, judge
from gismo_core.bench.table import cells

GIB = 1 << 30
NO_WORSE = Row("x", "ms", "lower", "", "interval", 0.95, 1.0)


def test_names_and_units_are_the_fixed_ones() -> None:
    units = {row.name: row.unit for group in catalog.RAY_GROUPS for row in group.rows}
    gets = ("4KiB", "64KiB", "128KiB", "1MiB", "16MiB", "1GiB", "flat")
    puts = ("1GiB", "16MiB", "1MiB", "64KiB", "1GiB.inplace")
    assert units == {
        **{f"ray.remote_get.{size}": "ms" for size in gets},
        "ray.remote_get_read.1GiB": "ms",
        "ray.remote_get_read.1GiB.new_worker": "ms",
        **{f"ray.put.{size}": "ms" for size in puts},
        "ray.return.1GiB": "ms",
        "ray.broadcast.1GiB": "ms",
        "ray.list.10000x100KB": "ms",
        "ray.torch.byvalue.8x256MiB": "ms",
        "ray.objects_per_s.1MiB": "objects/s",
        "ray.shuffle": "s",
        **{f"ray.data.{job}": "s" for job in ("sort", "groupby", "random_shuffle", "ingest")},
        "ray.memory.copies": "copies",
        **{f"ray.free.lag.{which}": "s" for which in ("p50", "p99", "gil", "full", "churn")},
        "ray.small.tasks": "s",
        "ray.worker.start": "ms",
        "ray.spill": "s",
        "ray.scan": "%",
    }


def test_rows_are_selected_from_the_table_asked_for() -> None:
    listed = CliRunner().invoke(bench, ["ray", "--list", "--only", "ray.put*"])
    assert listed.exit_code == 0
    assert len(listed.output.splitlines()) == 5
    assert "no row matches" in CliRunner().invoke(bench, ["ray", "--list", "--only", "store.put*"]).output


# ---- rows judged by the interval of pairs ----


def test_the_interval_is_students() -> None:
    # Ratios 2 and 8: mean of the logarithms log 4, their deviation log 4 / sqrt 2, t of 1 degree is out of range
    # of the expansion, so 4 pairs: t(3) = 3.182, deviation of (log 2, log 8, log 2, log 8) = 0.8003.
    low, high = interval_of(NO_WORSE, [1, 1, 1, 1], [2, 8, 2, 8])
    assert low * high == pytest.approx(16)
    assert high / 4 == pytest.approx(2.718281828 ** (3.182 * 0.80037 / 2), rel=0.005)


@pytest.mark.parametrize(
    ("ours", "stock", "verdict"),
    [
        ([1.0, 1.1, 0.9, 1.0], [1.0, 1.0, 1.0, 1.0], "aim"),  # the interval reaches 1
        ([1.04, 1.04, 1.03, 1.05], [1.0, 1.0, 1.0, 1.0], "reached"),  # 0.95 to 0.97
        ([1.2, 1.21, 1.19, 1.2], [1.0, 1.0, 1.0, 1.0], "missed"),
    ],
)
def test_no_worse_is_judged_by_the_upper_end(ours: list[float], stock: list[float], verdict: str) -> None:
    result = judge(NO_WORSE, Measurement("x", ours, {STOCK: stock}))
    assert result.verdict == verdict
    assert "95 %" in cells(result)[3]


def test_an_interval_needs_pairs() -> None:
    with pytest.raises(ValueError, match="2 pairs"):
        judge(NO_WORSE, Measurement("x", [1.0], {STOCK: [1.0]}))
    with pytest.raises(ValueError, match="argument 2"):
        judge(NO_WORSE, Measurement("x", [1.0, 1.0], {STOCK: [1.0]}))


def test_a_row_without_an_aim_is_reached_at_most() -> None:
    row = Row("x", "ms", "lower", "", "ratio", 2.0, None)
    result = judge(row, Measurement("x", [1.0], {STOCK: [1000.0]}))
    assert result.verdict == "reached"
    assert cells(result)[5] == ""


# ---- beside the ratio ----


def test_lines_and_processor_time_are_per_object() -> None:
    samples = Samples()
    with_gismo, stock = _named(GISMO), _named(STOCK)
    for _ in range(3):
        samples.add(with_gismo, 0.1, cpu_s=2.0)
        samples.add(stock, 1.0, cpu_s=4.0)
    beside = samples.beside(GIB, count=2)
    assert beside["CPU s/GiB"] == pytest.approx(1.0)
    assert beside["stock's CPU s/GiB"] == pytest.approx(2.0)
    # 1 GiB over 25 Gbit/s takes 0.3436 s.
    assert beside["times an ideal 25 Gbit/s line"] == pytest.approx(3.436, rel=1e-3)
    assert samples.beside(GIB, copies=3)["times an ideal 100 Gbit/s line"] == pytest.approx(3 * 3.436 / 4, rel=1e-3)


def _named(name: str) -> Side:
    one = object.__new__(Side)
    one.name = name
    return one


def test_both_clusters_need_their_room_only_when_both_live() -> None:
    shape = Shape(nodes=4, plasma_bytes=100, pool_bytes=300)
    assert shape.needs_bytes() == 700
    assert shape.needs_bytes(together=False) == 400
    assert Shape(nodes=4, plasma_bytes=100, pool_bytes=300, warm_both=True).needs_bytes() == 1100


# ---- the two are kept apart ----


def test_only_one_side_hears_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GISMO_STORE", "file:/the/users/own")
    monkeypatch.setenv("RAY_ADDRESS", "the.users.own:6379")
    shape = Shape(nodes=1, plasma_bytes=1, pool_bytes=1)
    stock, ours = _named(STOCK), _named(GISMO)
    for one, store in ((stock, ""), (ours, "file:/pool")):
        one.shape, one.store, one.state_dir, one.directory = shape, store, Path("/state"), Path("/tmp/x")
    without, with_it = stock._environment(), ours._environment()
    assert not [name for name in without if name.startswith("GISMO_")]
    assert without["RAY_preallocate_plasma_memory"] == "1"
    assert with_it["GISMO_STORE"] == "file:/pool"
    assert "RAY_preallocate_plasma_memory" not in with_it
    assert "RAY_ADDRESS" not in with_it
    assert "RAY_ADDRESS" not in without


# ---- processes ----


def _family() -> subprocess.Popen[str]:
    code = "import subprocess, sys; subprocess.Popen(['sleep', '600']); print('up', flush=True); sys.stdin.read()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdin is not None
    assert parent.stdout.readline() == "up\n"
    return parent


def test_descendants_are_found_and_ended() -> None:
    parent = _family()
    found = processes.descendants(parent.pid)
    assert parent.pid in found
    assert len(found) == 2
    processes.end_all(found)
    assert not [pid for pid in found if Path(f"/proc/{pid}").exists()]
    parent.communicate()


def test_processor_time_is_that_of_the_whole_family() -> None:
    code = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint('done')\ninput()"
    shell = subprocess.Popen(
        ["sh", "-c", f'"{sys.executable}" -c "$CODE"; true'],
        env={**os.environ, "CODE": code},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert shell.stdout is not None
    before = processes.cpu_seconds(shell.pid)
    assert shell.stdout.readline() == "done\n"
    assert processes.spent(before, processes.cpu_seconds(shell.pid)) >= 0.25
    shell.communicate("\n")


def test_what_a_dead_process_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side, "_PARENT", str(tmp_path))
    for name in ("gb-123-abc", "gb-1234-abc"):
        (tmp_path / name).mkdir()
    left = subprocess.Popen(["sleep", "600"], env={"RAY_TMPDIR": f"{tmp_path}/gb-123-abc"})
    others = subprocess.Popen(["sleep", "600"], env={"RAY_TMPDIR": f"{tmp_path}/gb-1234-abc"})
    side.sweep(123)
    assert left.wait(timeout=20) != 0 or not Path(f"/proc/{left.pid}").exists()
    assert others.poll() is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["gb-1234-abc"]
    others.kill()
    others.wait()
    time.sleep(0)
