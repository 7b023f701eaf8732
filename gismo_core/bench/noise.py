"""What other processes took of the processors while something was measured."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of processor time since boot, of the whole machine; and of our processes."""

    all_s: float
    busy_s: float
    own_s: float

    @staticmethod
    def now(own_s: float) -> Usage:
        """Read the machine's; the caller knows its own."""
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]  # later ones are part of these
        ticks = [int(field) for field in fields]
        idle = ticks[3] + ticks[4]
        return Usage(sum(ticks) * TICK_S, (sum(ticks) - idle) * TICK_S, own_s)

    def foreign_since(self, before: Usage) -> float:
        """Share of all processor time since ``before`` that went to others (or to the hypervisor), 0 to 1."""
        whole = self.all_s - before.all_s
        if whole <= 0:
            return 0.0
        return max(0.0, (self.busy_s - before.busy_s) - (self.own_s - before.own_s)) / whole


def run_seconds(pids: Iterable[int]) -> float:
    """Processor time that living processes of one thread each (their main one counts) had so far."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9
