"""How large and how long: what the machine has room for, and how the seconds are shared out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gismo_core.bench.medium import memory_available_bytes
from gismo_core.demo.report import DemoError

MIB = 1 << 20
GIB = 1 << 30

SHM = Path("/dev/shm")
DEFAULT_SECONDS = 28
MOST_SECONDS = 600
_MOST_SHM_BYTES = 2 * GIB
_BESIDE_STORE_BYTES = 64 * MIB  # state directories: pins, claims and bitmaps of three hosts
_LEAST_STORE_BYTES = 32 * MIB
_QUICK_STORE_BYTES = 256 * MIB
_QUICK_BELOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes in bytes, times in seconds."""

    store_bytes: int
    large_bytes: int
    """The object that every host gets; at most, for the store may have no room for it in one piece."""
    largest_bytes: int
    """Of the writers' objects."""
    places: int
    """Objects that each writer keeps."""
    held_objects: int
    """That the killed writer has half-written."""
    held_bytes: int
    """Size of each of those."""
    traffic_s: float
    before_s: float
    frozen_s: float
    after_s: float
    cycle_s: float
    limit_s: float
    """The run is given up after this time."""
    hosts: int = 3
    seed: int = 20
    sabotage: bool = False
    """Writers spoil some objects: for the test that sees whether the readers notice."""


def make_plan(seconds: float, *, sabotage: bool = False) -> Plan:
    """For this machine, so that the parts with a duration take about `seconds` in all.

    The rest (formatting, the large object, checking, ending) takes a few seconds more. DemoError: no room.
    """
    if not SHM.is_dir():
        raise DemoError(f"there is no {SHM}: the demo needs a memory file system there")
    shm_bytes = min(_MOST_SHM_BYTES, _free_bytes(SHM) * 3 // 4)
    # The large object is in memory three times: in the store, as what is put, as what memcpy makes of it.
    memory_bytes = min(memory_available_bytes(), _cgroup_free_bytes()) // 3
    store_bytes = min(shm_bytes, memory_bytes)
    store_bytes -= min(_BESIDE_STORE_BYTES, store_bytes // 4)
    if seconds < _QUICK_BELOW_S:
        store_bytes = min(store_bytes, _QUICK_STORE_BYTES)
    store_bytes = store_bytes // MIB * MIB
    if store_bytes < _LEAST_STORE_BYTES:
        raise DemoError(
            f"{SHM} has {_free_bytes(SHM) // MIB} MiB free and the machine {memory_bytes * 3 // MIB} MiB of memory: "
            "the demo needs 64 MiB and 144 MiB. In a container: --shm-size 1g"
        )
    held_bytes = max(4096, store_bytes // 16 // 64 // 4096 * 4096)
    # The writers' objects take an eighth to a fifth of the store: their mean size is about a tenth of the largest.
    return Plan(
        store_bytes=store_bytes,
        large_bytes=min(GIB, store_bytes // 2),
        largest_bytes=1 << (store_bytes // (512 if store_bytes >= GIB else 1024)).bit_length() - 1,
        places=512 if store_bytes >= GIB else 256,
        held_objects=64,
        held_bytes=held_bytes,
        traffic_s=0.34 * seconds,
        before_s=0.12 * seconds,
        frozen_s=0.2 * seconds,
        after_s=0.12 * seconds,
        cycle_s=0.06 * seconds,
        limit_s=max(58.0, seconds + 28.0),
        sabotage=sabotage,
    )


def _free_bytes(path: Path) -> int:
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def _cgroup_free_bytes() -> int:
    """What a container may still take, as far as it can see its own limit; page cache counts as free."""
    try:
        root = Path("/sys/fs/cgroup")
        limit = (root / "memory.max").read_text().strip()
        if limit == "max":
            return 1 << 62
        used = int((root / "memory.current").read_text())
        fields = (line.split() for line in (root / "memory.stat").read_text().splitlines())
        cache = {name: int(value) for name, value in fields if name in ("inactive_file", "active_file")}
        return max(0, int(limit) - used + sum(cache.values()))
    except (OSError, ValueError):
        return 1 << 62
