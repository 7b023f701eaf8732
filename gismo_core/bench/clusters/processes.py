"""The processes that descend from one: what they cost, and their end. From /proc alone."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def adopt_orphans() -> None:
    """Have the kernel give this process the children of its descendants that end: none escapes."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))


def _stats() -> dict[int, tuple[int, float]]:
    """pid → (its parent, seconds of processor time of it and of the children that it has waited for)."""
    found = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            text = Path(entry.path, "stat").read_text()
        except OSError:
            continue  # gone
        fields = text[text.rindex(")") + 2 :].split()
        found[int(entry.name)] = int(fields[1]), sum(map(int, fields[11:15])) * _TICK_S
    return found


def _tree(root: int, stats: dict[int, tuple[int, float]]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in stats.items():
        children.setdefault(parent, []).append(pid)
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        if pid in stats:
            found.append(pid)
        queue += children.get(pid, ())
    return found


def descendants(root: int) -> list[int]:
    """The process and all that descend from it."""
    return _tree(root, _stats())


def cpu_seconds(root: int) -> dict[int, float]:
    """Processor time so far, by process, of one and all that descend from it."""
    stats = _stats()
    return {pid: stats[pid][1] for pid in _tree(root, stats)}


def spent(before: dict[int, float], after: dict[int, float]) -> float:
    """Seconds of processor time between two readings; of a process that came meanwhile, all."""
    return sum(max(0.0, seconds - before.get(pid, 0.0)) for pid, seconds in after.items())


def end_all(pids: list[int], patience_s: float = 5.0) -> None:
    """SIGKILL what of these is still there, and wait until it is gone. Reaps those that were adopted."""
    end = time.monotonic() + patience_s
    left = list(pids)
    while left and time.monotonic() < end:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
        left = [pid for pid in left if Path(f"/proc/{pid}").exists()]
        if left:
            time.sleep(0.02)
