"""``sim.steps_per_s``: how fast the simulator of ``tests/sim`` is. Of a checkout: the installed package has none."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from gismo_core.bench.group import Context, Group
from gismo_core.bench.result import Measurement, Row
from gismo_core.bench.worker import WorkerError

STEPS = Row(
    name="sim.steps_per_s",
    unit="steps/s",
    better="higher",
    what="gismo-sim, all scenarios and adversaries: accesses of the core to simulated memory, on one core",
    judged="value",
    reach=1e6,
    aim=5e6,
)


def program() -> Path | None:
    """The newest build of the simulator in this checkout."""
    import gismo_core

    build = Path(gismo_core.__file__).resolve().parents[1] / "build"
    found = sorted(build.glob("*/gismo-sim"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def lacks() -> str | None:
    """Why it cannot be measured here."""
    return None if program() else "gismo-sim is not built: `make sim` in a checkout of Gismo builds it"


def run(context: Context) -> Iterator[Measurement]:
    """Each sample other seeds, the same number of runs."""
    found = program()
    assert found is not None
    runs = context.pick(8, 1)
    samples = []
    for sample in range(context.samples):
        command = [str(found), "run", "--seed", str(1 + sample * runs), "--runs", str(runs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        speed = re.search(r"(\d+) steps, ([\d.]+) s", done.stdout)
        if done.returncode != 0 or speed is None:
            raise WorkerError(f"gismo-sim failed: {done.stderr.strip().splitlines()[:1]}")
        samples.append(int(speed[1]) / float(speed[2]))
    yield Measurement(STEPS.name, samples)


GROUPS = (Group(STEPS.name, (STEPS,), run, lambda _: 0, lacks=lacks),)
