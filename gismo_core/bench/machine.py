"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from gismo_core.bench.medium import Medium


def describe(medium: Medium, *, quick: bool) -> dict[str, Any]:
    """The "machine" of the JSON form."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) * 1024,
        "kernel": platform.release(),
        "medium": medium.describe(),
        "huge_pages": {
            "anonymous": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
            "shared": _chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
            "mount": _mount_options(medium.path),
        },
        "python": platform.python_version(),
        "quick": quick,
    }


def _field(path: str, key: str) -> str | None:
    try:
        for line in Path(path).read_text().splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip() == key:
                return value.strip()
    except OSError:
        pass
    return None


def _chosen(path: str) -> str | None:
    """The word in brackets of a setting of the kernel."""
    try:
        text = Path(path).read_text()
    except OSError:
        return None
    return text.partition("[")[2].partition("]")[0] or text.strip()


def _mount_options(path: Path) -> str | None:
    """File system and options of the mount that the path is on."""
    best: tuple[int, str] | None = None
    resolved = str(path.resolve())
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, where, kind, options, *_ = line.split()
        inside = resolved == where or resolved.startswith(where.rstrip("/") + "/")
        if inside and (best is None or len(where) >= best[0]):
            best = len(where), f"{kind} {options}"
    return best[1] if best else None
