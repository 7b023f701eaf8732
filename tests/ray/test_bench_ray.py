"""A quick run of `gismo bench ray`: real clusters, side by side, and nothing left of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gismo_core.bench.clusters import processes
from gismo_core.bench.clusters.shape import Shape
from gismo_core.bench.clusters.side import STOCK, Side, SideError

pytest.importorskip("ray")


def test_a_cluster_that_is_stuck_is_ended() -> None:
    before = set(processes.descendants(os.getpid()))
    side = Side(STOCK, Shape(nodes=1, plasma_bytes=100 << 20, pool_bytes=0, warm=False), answer_s=0.2)
    try:
        with pytest.raises(SideError, match=r"stock Ray did not answer within 0.2 s"):
            side.ready()  # no Ray starts in that time
    finally:
        side.end()
    assert not side.directory.exists()
    assert set(processes.descendants(os.getpid())) <= before


def test_two_rows_side_by_side() -> None:
    before = {*Path("/tmp").glob("gb-*"), *Path("/dev/shm").glob("gismo-bench-*")}
    bench = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gismo_core",
            "bench",
            "ray",
            "--quick",
            "--samples",
            "5",
            "--json",
            "--only",
            "ray.put.16MiB",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = bench.communicate(timeout=280)
    assert bench.returncode == 0, err + out
    document = json.loads(out)
    (row,) = document["results"]
    assert row["name"] == "ray.put.16MiB"
    assert row["baseline_name"] == "stock Ray"
    assert len(row["samples"]) == len(document["baselines"]["ray.put.16MiB"]["stock Ray"]) == 5
    assert min(row["samples"]) > 0
    assert document["details"]["ray.put.16MiB"]["CPU s/GiB"] > 0
    assert not document["failed"]
    after = {*Path("/tmp").glob("gb-*"), *Path("/dev/shm").glob("gismo-bench-*")}
    left = [
        path
        for path in after - before
        if path.name.startswith("gb-") and not Path("/proc", path.name.split("-")[1]).exists()
    ]
    assert not left
