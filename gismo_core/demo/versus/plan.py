"""How large everything is: what the machine has room for."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from gismo_core.bench.clusters.shape import Shape
from gismo_core.bench.medium import memory_available_bytes
from gismo_core.demo.plan import SHM
from gismo_core.demo.report import DemoError

MIB = 1 << 20
GIB = 1 << 30

NODES = 4
_STEP_BYTES = 64 * MIB
# The largest object counts as one unit. A pool of six of them, or plasma of four times one and a half.
_POOL_UNITS = 6.0
_PLASMA_UNITS = 1.5
_SHM_UNITS = 6.5
_MEMORY_UNITS = 14.0  # with what the processes of a cluster have of their own, and what others take meanwhile


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes in bytes."""

    shape: Shape
    object_bytes: int
    partitions: int
    partition_bytes: int
    dataset_bytes: int
    blocks: int
    table_bytes: int
    batches: int
    repeats: int = 3
    """How often the short acts count, of which the median is shown."""
    limit_s: float = 600.0
    """The run is given up after this time."""


def make_plan(memory_bytes: int | None = None, shm_bytes: int | None = None) -> Plan:
    """For this machine, or for one of that size. DemoError: no room."""
    if not SHM.is_dir():
        raise DemoError(f"there is no {SHM}: the demo needs a memory file system there")
    if memory_bytes is None:
        memory_bytes = memory_available_bytes()
    if shm_bytes is None:
        room = os.statvfs(SHM)
        shm_bytes = room.f_bavail * room.f_frsize
    unit = int(min(GIB, memory_bytes / _MEMORY_UNITS, shm_bytes / _SHM_UNITS)) // _STEP_BYTES * _STEP_BYTES
    if unit < _STEP_BYTES:
        raise DemoError(
            f"{SHM} has {shm_bytes // MIB} MiB free and the machine {memory_bytes // MIB} MiB of memory: Ray side by "
            f"side needs {int(_SHM_UNITS * _STEP_BYTES) // MIB} and {int(_MEMORY_UNITS * _STEP_BYTES) // MIB} MiB (in a "
            "container: --shm-size); `gismo demo store` needs less"
        )
    shape = Shape(nodes=NODES, plasma_bytes=int(_PLASMA_UNITS * unit), pool_bytes=int(_POOL_UNITS * unit))
    return Plan(
        shape=shape,
        object_bytes=unit,
        partitions=20,
        partition_bytes=unit * 200_000_000 // GIB // 16 * 16,
        dataset_bytes=unit // 2,  # twice as much took two and a half of the six minutes on a slow machine
        blocks=8,
        table_bytes=unit // 2,
        batches=6,
    )


SLOW_START_S = 30.0
"""A machine on which stock Ray's cluster takes longer than this to be up gets a hurried() plan."""


def hurried(plan: Plan) -> Plan:
    """The same in less time: the long jobs of half the size, the short ones count once.

    For machines that need seconds for each GiB of memory that they have not touched lately: there the whole plan takes
    six minutes in the place of four (docs/results.md).
    """
    return replace(
        plan,
        partition_bytes=plan.partition_bytes // 2 // 16 * 16,
        dataset_bytes=plan.dataset_bytes // 2,
        batches=(plan.batches + 1) // 2,
        repeats=1,
    )
