"""The wheel that users install, beside a Ray that is not ours to change: GISMO_STORE is all that it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ray_head
import ray_pool
import ray_venv

PROGRAM = (
    ray_pool.PRELUDE
    + ray_pool.ROUND
    + """
import gismo_core
ray.init()
print("FOUND " + json.dumps([settled(), gismo_core.__file__]))
"""
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel of this tree and with Ray; its folder."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ray_venv.ROOT)]
    python = ray_venv.make(folder / "env", [])
    find = ["--no-deps", "--no-index", "--find-links", str(folder), "gismo-cxl"]
    for arguments in (build, ["--python", str(python), "install", *find]):
        done = subprocess.run([*pip, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    ray_venv.lend(folder / "env", [ray_venv.site_packages_of_tests()])  # only now: pip would find this tree there
    return folder / "env"


def found_in(text: str) -> list[object]:
    line = next(line for line in text.splitlines() if "FOUND " in line)
    found: list[object] = json.loads(line.partition("FOUND ")[2])
    return found


def test_what_loads_it_lies_beside_the_package(installed: Path) -> None:
    site_packages = installed / ray_venv.SITE_PACKAGES
    for name in ("gismo.pth", "gismo_boot.py"):
        assert (site_packages / name).read_bytes() == (ray_venv.ROOT / "gismo_core" / "ray" / name).read_bytes()


def test_drivers_and_submitted_jobs(installed: Path, pool: ray_pool.Pool, folder: Path) -> None:
    python = installed / "bin" / "python"
    expected = [
        ray_pool.everywhere(in_store=True),
        str(installed / ray_venv.SITE_PACKAGES / "gismo_core" / "__init__.py"),
    ]
    environment = pool.environment()
    with ray_head.running(environment, folder, python=python, dashboard=True) as head:
        driver = ray_pool.run(PROGRAM, environment | {"RAY_ADDRESS": head.address}, folder, python=python)
        assert driver.code == 0, driver.err
        assert found_in(driver.out) == expected
        assert driver.warnings == []
        # The job's driver runs where the cluster does, and gets its environment from there: nothing is said of Gismo here.
        submit = [
            str(python), "-m", "ray.scripts.scripts", "job", "submit", "--address", head.dashboard, "--",
            str(python), str(folder / "program.py"),
        ]  # fmt: skip
        job = ray_pool.run_command(submit, pool.environment(GISMO_STORE=None), folder)
        assert job.code == 0, job.out + job.err
        assert found_in(job.out) == expected
