"""What Ray keeps, and who holds it: `gismo top`, `gismo fsck --ray`, metrics, and Ray's own tools."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ray_head
import ray_pool
import ray_venv
from gismo_core.cli import exits

pytestmark = pytest.mark.timeout(600)

# Holds a put of its own, the return of a task, and an actor that keeps an array after its reference is gone; reads what
# a task is given by value. Then waits.
HOLDER = (
    ray_pool.PRELUDE
    + """
import threading, time

@ray.remote(num_cpus=0)
class Archive:
    def keep(self, array):
        self.array = array
        return os.getpid()
    def settle(self, n):
        return np.zeros(n, np.uint8)

ray.init(address=os.environ["ADDRESS"])
archive = Archive.remote()
while not in_store(ray.get(make.remote(1 << 20))) or not in_store(ray.get(archive.settle.remote(1 << 20))):
    time.sleep(0.1)
mine = ray.put(np.full(1 << 20, 1, np.uint8))
returned = make.remote(2 << 20)
ray.wait([returned])
archived = ray.put(np.full(3 << 20, 3, np.uint8))
actor_pid = ray.get(archive.keep.remote(archived))
del archived
stepped = np.zeros((1 << 21), np.uint8)[::2]
print(json.dumps([os.getpid(), actor_pid, ray.get_runtime_context().get_job_id()]), flush=True)
time.sleep(1000)
"""
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A cluster with somebody who holds things."""

    head: ray_head.Head
    pool: ray_pool.Pool
    driver_pid: int
    actor_pid: int
    job: str

    def gismo(self, folder: Path, *arguments: str, **environment: str | None) -> ray_pool.Ran:
        command = [sys.executable, "-m", "gismo_core", *arguments]
        return ray_pool.run_command(command, self.pool.environment(**environment), folder, timeout_s=300)


@pytest.fixture(scope="module")
def scene(shared_pool: ray_pool.Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    with contextlib.ExitStack() as stack:
        head = stack.enter_context(ray_head.running(shared_pool.environment(), folder, dashboard=True))
        (folder / "holder.py").write_text(HOLDER)
        out, err = folder / "holder-out.txt", folder / "holder-err.txt"
        with out.open("wb") as to_out, err.open("wb") as to_err:
            holder = subprocess.Popen(
                [sys.executable, str(folder / "holder.py")], env=shared_pool.environment(ADDRESS=head.address),
                stdin=subprocess.DEVNULL, stdout=to_out, stderr=to_err, start_new_session=True,
            )  # fmt: skip
        stack.callback(ray_pool.end_session, holder)
        end = time.monotonic() + 240
        while not (said := out.read_text()).endswith("\n"):
            assert holder.poll() is None, err.read_text()
            assert time.monotonic() < end, err.read_text()
            time.sleep(0.1)
        yield Scene(head, shared_pool, *json.loads(said.splitlines()[-1]))


def of_size(records: list[dict[str, Any]], mebibytes: int) -> list[dict[str, Any]]:
    return [one for one in records if one["nbytes"] // ray_pool.MiB == mebibytes]


def test_fsck_names_each_record_and_what_holds_it(scene: Scene, folder: Path) -> None:
    end = time.monotonic() + 90
    while True:  # what the scene's first rounds left goes within moments
        ran = scene.gismo(folder, "fsck", "--ray", "--address", scene.head.address, "--json", scene.pool.path)
        assert ran.code == exits.OK, ran.out + ran.err
        found = json.loads(ran.out)["ray"]
        records = found["records"]
        if len(records) == 3 or time.monotonic() > end:
            break
        time.sleep(0.5)
    assert found["problem"] is None
    assert sorted(one["nbytes"] // ray_pool.MiB for one in records) == [1, 2, 3]
    assert {one["job"] for one in records} == {scene.job}
    (mine,), (returned,), (archived,) = (of_size(records, size) for size in (1, 2, 3))

    assert (mine["kind"], mine["made_by"]) == ("put", "driver")
    assert [(one["what"], one["pid"]) for one in mine["holders"]] == [("driver", scene.driver_pid)]

    assert (returned["kind"], returned["made_by"]) == ("return", "task make")
    assert ("driver", scene.driver_pid) in [(one["what"], one["pid"]) for one in returned["holders"]]

    assert archived["made_by"] == "driver"
    assert scene.actor_pid in [one["pid"] for one in archived["holders"]]
    assert f"pid {scene.actor_pid} on {archived['node'][:12]}" in archived["held_by"]


def test_fsck_for_people(scene: Scene, folder: Path) -> None:
    ran = scene.gismo(folder, "fsck", "--ray", "--address", scene.head.address, scene.pool.path)
    assert ran.code == exits.OK, ran.err
    assert re.search(r"Ray keeps \d+ objects", ran.out)
    assert re.search(rf"return .*{scene.job} .*task make .*pid {scene.driver_pid} ", ran.out)


def test_top_names_job_and_task_without_ray(scene: Scene, folder: Path) -> None:
    # An environment without Ray at all: headers say it.
    python = ray_venv.make(folder / "env", [])
    ray_venv.add_this_tree(folder / "env")
    import click

    (folder / "env" / ray_venv.SITE_PACKAGES / "click").symlink_to(Path(click.__file__).parent)
    command = [str(python), "-m", "gismo_core", "top", "--once", "--interval", "0.05", scene.pool.path]
    ran = ray_pool.run_command(command, scene.pool.environment(), folder)
    assert ran.code == exits.OK, ran.err
    assert re.search(rf"{scene.job} +task make ", ran.out)
    assert re.search(rf"{scene.job} +driver ", ran.out)
    asked = ray_pool.run_command([*command, "--ray"], scene.pool.environment(), folder)
    assert asked.code == exits.OK, asked.err
    assert re.search(rf"{scene.job} +task make ", asked.out)
    assert "what holds them is unknown: Ray is not installed" in asked.out


def test_top_names_holders(scene: Scene, folder: Path) -> None:
    arguments = ["top", "--once", "--interval", "0.05", "--ray", "--address", scene.head.address, "--json"]
    ran = scene.gismo(folder, *arguments, scene.pool.path)
    assert ran.code == exits.OK, ran.err
    seen = json.loads(ran.out)["ray"]
    assert seen["problem"] is None
    groups = {(one["job"], one["made_by"]): one for one in seen["groups"]}
    driver = groups[scene.job, "driver"]
    held_by = "\n".join(driver["held_by"])
    assert f"driver pid {scene.driver_pid} " in held_by
    assert f"pid {scene.actor_pid} " in held_by
    assert driver["oldest_unix_ns"] > 0


# ---- metrics --------------------------------------------------------------------------------------------------------

FALLBACK = (
    ray_pool.PRELUDE
    + """
import time
ray.init(address=os.environ["ADDRESS"])
too_large = ray.put(np.zeros(300 << 20, np.uint8))  # more than the pool has
for _ in range(600):
    time.sleep(0.1)
    if os.path.exists(os.environ["DONE"]):
        break
"""
)


def metrics(head: ray_head.Head) -> dict[str, float]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{head.metrics_port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    found: dict[str, float] = {}
    for name, labels, value in re.findall(r"^ray_(gismo_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        reason = re.search(r'reason="([^"]*)"', labels)
        key = f"{name} {reason[1]}" if reason else name
        found[key] = found.get(key, 0.0) + float(value)
    return found


def test_metrics_are_on_rays_own_endpoint(scene: Scene, folder: Path) -> None:
    done = folder / "done"
    (folder / "fallback.py").write_text(FALLBACK)
    with (folder / "fallback.txt").open("wb") as out:
        writer = subprocess.Popen(
            [sys.executable, str(folder / "fallback.py")],
            env=scene.pool.environment(ADDRESS=scene.head.address, DONE=str(done)),
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        wanted = {
            "gismo_records", "gismo_used_bytes", "gismo_freed_total", "gismo_scans_total",
            "gismo_scan_cpu_seconds_total", "gismo_fallbacks_total full",
        }  # fmt: skip
        end = time.monotonic() + 180
        while not wanted <= (found := metrics(scene.head)).keys() and time.monotonic() < end:
            time.sleep(0.5)
    finally:
        done.touch()
        ray_pool.end_session(writer)
    assert wanted <= found.keys(), f"{found}\n{(folder / 'fallback.txt').read_text()}"
    assert found["gismo_records"] >= 3
    assert found["gismo_used_bytes"] >= 6 * ray_pool.MiB
    assert found["gismo_scans_total"] >= 2
    assert found["gismo_freed_total"] >= 1
    assert found["gismo_fallbacks_total full"] == 1


# ---- Ray's own tools ------------------------------------------------------------------------------------------------


def test_rays_own_tools_still_work(scene: Scene, folder: Path) -> None:
    environment = scene.pool.environment(RAY_ADDRESS=scene.head.address)
    memory = ray_pool.run_command([sys.executable, "-m", "ray.scripts.scripts", "memory"], environment, folder)
    assert memory.code == 0, memory.out + memory.err
    assert str(scene.driver_pid) in memory.out
    program = """
import json
from ray.util import state
actors = [one for one in state.list_actors() if one.state == "ALIVE"]
(keeper,) = [one.actor_id for one in actors if one.class_name == "Keeper"]
objects = [one.object_id for one in state.list_objects()]
print(json.dumps([[one.class_name for one in actors], len(state.list_nodes()), keeper, objects]))
"""
    ran = ray_pool.run(program, environment, folder)
    assert ran.code == 0, ran.err
    classes, nodes, keeper, objects = json.loads(ran.out.splitlines()[-1])
    assert sorted(classes) == ["Archive", "Keeper"]
    assert nodes == 1
    assert len(objects) >= 3
    # Tokens: a return of an actor's has in its ID that of the actor. In the tables they are, in the list they are not.
    assert len(re.findall(rf"\b[0-9a-f]{{16}}{keeper}[0-9a-f]{{8}}\b", memory.out)) > 16
    assert [one for one in objects if one[16:48] == keeper] == []


IDLE = (
    ray_pool.PRELUDE
    + """
import time
ray.init(address=os.environ["ADDRESS"])
table = ray._private.worker.global_worker.core_worker.get_all_reference_counts

def until(wanted):
    end = time.monotonic() + 25
    while not wanted(len(table())) and time.monotonic() < end:
        time.sleep(0.05)
    return len(table())

def pass_by_value():
    passed = here.remote(np.full(1 << 20, 6, np.uint8))
    busy = until(lambda number: number >= 16)  # at once: while a worker starts, the driver may become idle
    assert tuple(ray.get(passed)) == (True, 6)
    del passed
    return busy, until(lambda number: number == 0)

print(json.dumps([pass_by_value(), pass_by_value()]))
"""
)


def test_an_idle_process_has_no_reference_of_gismos_own(scene: Scene, folder: Path) -> None:
    # Tokens are made ahead of need: to whoever looks for a leak, in `ray memory` or in the table, they look like one.
    ran = ray_pool.run(IDLE, scene.pool.environment(ADDRESS=scene.head.address), folder)
    assert ran.code == 0, ran.err
    for busy, idle in json.loads(ran.out.splitlines()[-1]):
        assert busy >= 16
        assert idle == 0
