"""`gismo ray check`: node by node, whether everything is in place, and why not."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gismo_core
import ray_head
import ray_pool
import ray_venv
from gismo_core.cli import exits

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def head(shared_pool: ray_pool.Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ray_head.Head]:
    with ray_head.running(shared_pool.environment(), tmp_path_factory.mktemp("head")) as started:
        yield started


def check(pool: ray_pool.Pool, folder: Path, address: str, *more: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "gismo_core", "ray", "check", "--address", address, *more]
    # As from a shell in which nobody set anything.
    ran = ray_pool.run_command(command, pool.environment(GISMO_STORE=None, GISMO_STATE_DIR=None), folder, timeout_s=300)
    return ran.code, ran.out, ran.err


def test_all_in_place(shared_pool: ray_pool.Pool, head: ray_head.Head, folder: Path) -> None:
    code, out, err = check(shared_pool, folder, head.address, "--json")
    assert code == exits.OK, out + err
    report: dict[str, Any] = json.loads(out)
    assert report["ok"]
    (node,) = report["nodes"]
    assert node["problems"] == []
    assert node["integrated"]
    assert node["gismo"] == gismo_core.__version__
    assert node["store"] == f"file:{shared_pool.path}"
    assert node["store_uuid"] == str(gismo_core.probe(shared_pool.path).store_uuid)
    assert node["host_id"] == 0
    assert report["keeper"]["alive"]
    assert report["keeper"]["node_id"] == node["node_id"]
    assert report["scan_complete"]
    assert report["records"] == 0
    assert report["problems"] == []


def test_for_people_with_records(shared_pool: ray_pool.Pool, head: ray_head.Head, folder: Path) -> None:
    program = (
        ray_pool.PRELUDE
        + """
import subprocess
ray.init(address=os.environ["ADDRESS"])
kept = [ray.put(np.zeros(1 << 20, np.uint8)) for _ in range(3)]
command = [sys.executable, "-m", "gismo_core", "ray", "check", "--address", os.environ["ADDRESS"]]
print(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout)
"""
    )
    ran = ray_pool.run(program, shared_pool.environment(ADDRESS=head.address), folder, timeout_s=300)
    assert ran.code == 0, ran.err
    assert "all is in place" in ran.out, ran.out + ran.err
    assert "3 (3" in ran.out  # records, MiB
    assert "alive, on node" in ran.out


def test_what_ray_has_to_say_is_not_on_stdout(shared_pool: ray_pool.Pool, head: ray_head.Head, folder: Path) -> None:
    program = """
import os, time
from gismo_core.ray import cluster
with cluster.connected(os.environ["ADDRESS"]) as ray:
    worker = ray._private.worker.global_worker
    ray._private.utils.push_error_to_driver(worker, "worker_died", "A worker died", worker.current_job_id)
    time.sleep(3)  # Ray's own thread prints it, some time after it was published
print("{}")
"""
    ran = ray_pool.run(program, shared_pool.environment(GISMO_STORE=None, ADDRESS=head.address), folder, timeout_s=120)
    assert ran.code == 0, ran.err
    assert ran.out == "{}\n"


def test_no_cluster(shared_pool: ray_pool.Pool, folder: Path) -> None:
    code, out, err = check(shared_pool, folder, "127.0.0.1:1", "--json")
    assert code == exits.NOT_FOUND, out + err
    assert "--address" in json.loads(err.splitlines()[-1])["error"]["message"]


def test_each_node_says_what_it_lacks(shared_pool: ray_pool.Pool, head: ray_head.Head, folder: Path, shm: Path) -> None:
    other = str(shm / "other")
    gismo_core.format(other, size=64 * ray_pool.MiB)
    bare = ray_venv.make(folder / "bare", [ray_venv.site_packages_of_tests()])
    unhooked = ray_venv.make(folder / "unhooked", [ray_venv.site_packages_of_tests(), ray_venv.ROOT])
    nodes: list[tuple[dict[str, str], Path | str]] = [
        (shared_pool.environment(GISMO_STORE=None), sys.executable),
        (shared_pool.environment(), bare),
        (shared_pool.environment(), unhooked),
        (shared_pool.environment(GISMO_STORE=f"file:{other}", GISMO_STATE_DIR=str(shm / "state")), sys.executable),
    ]
    with contextlib.ExitStack() as stack:
        for number, (environment, python) in enumerate(nodes):
            stack.enter_context(ray_head.another_node(head, environment, folder / f"node{number}", python=python))
        code, out, err = check(shared_pool, folder, head.address, "--json")
    assert code == exits.ERROR, out + err
    report: dict[str, Any] = json.loads(out)
    assert not report["ok"]
    assert len(report["nodes"]) == 5
    problems = sorted(" ".join(node["problems"]) for node in report["nodes"])
    assert problems[:2] == ["", ""]  # the head, and the one with another store, which is well by itself
    said = "\n".join(problems[2:])
    assert "GISMO_STORE is not set in its workers" in said
    assert "gismo_core cannot be imported there" in said
    assert "has no gismo.pth" in said
    assert len(report["problems"]) == 1
    assert "2 different stores" in report["problems"][0]
    assert str(gismo_core.probe(other).store_uuid) in report["problems"][0]
