"""Samples of both clusters, and what is said beside them."""

from __future__ import annotations

from dataclasses import dataclass, field

from gismo_core.bench.clusters.side import GISMO, STOCK, Side
from gismo_core.bench.group import GIB
from gismo_core.bench.result import Measurement

_LINES_GBIT_S = (25, 100)


@dataclass(slots=True)
class Samples:
    """Of one row: seconds of both sides, in pairs, and the processor time that they took in all."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {GISMO: [], STOCK: []})
    cpu_s: dict[str, float] = field(default_factory=lambda: {GISMO: 0.0, STOCK: 0.0})

    def add(self, side: Side, seconds: float, cpu_s: float = 0.0) -> None:
        """One more."""
        self.seconds[side.name].append(seconds)
        self.cpu_s[side.name] += cpu_s

    def measurement(self, name: str, *, per_s: float = 1e3, moved_bytes: int = 0, copies: int = 1) -> Measurement:
        """For a row in ms (per_s 1e3) or s (1). moved_bytes: of one sample, with the lines that could have moved them;
        copies: how many times one line would have to move the object of a sample."""
        return Measurement(
            name,
            [seconds * per_s for seconds in self.seconds[GISMO]],
            {STOCK: [seconds * per_s for seconds in self.seconds[STOCK]]},
            self.beside(moved_bytes, copies) if moved_bytes else {},
        )

    def beside(self, moved_bytes: int, copies: int = 1) -> dict[str, float]:
        """Processor time per GiB of both, and how many times as fast as a perfect line Gismo is."""
        found = {}
        for side, word in ((GISMO, "CPU s/GiB"), (STOCK, "stock's CPU s/GiB")):
            taken = len(self.seconds[side])
            if taken:
                found[word] = self.cpu_s[side] / (taken * moved_bytes / GIB)
        ours = sorted(self.seconds[GISMO])
        if ours:
            median_s = ours[len(ours) // 2]
            for gbit_s in _LINES_GBIT_S:
                found[f"times an ideal {gbit_s} Gbit/s line"] = moved_bytes * copies * 8 / (gbit_s * 1e9) / median_s
        return found


def median(values: list[float]) -> float:
    """The middle one; the higher of two."""
    return sorted(values)[len(values) // 2]
