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

    def measurement(
        self, name: str, *, per_s: float = 1e3, nbytes: int = 0, count: int = 1, copies: int = 1
    ) -> Measurement:
        """For a row in ms (per_s 1e3) or s (1); with nbytes, also with what beside() says."""
        return Measurement(
            name,
            [seconds * per_s for seconds in self.seconds[GISMO]],
            {STOCK: [seconds * per_s for seconds in self.seconds[STOCK]]},
            self.beside(nbytes, count, copies) if nbytes else {},
        )

    def beside(self, nbytes: int, count: int = 1, copies: int = 1) -> dict[str, float]:
        """Processor time per GiB of both sides, and how many times as fast as a perfect line Gismo is.

        nbytes: of one object; seconds are of one object. count: objects of one sample, whose processor time was taken
        together. copies: how many times a line would have to carry the object.
        """
        found = {}
        for side, word in ((GISMO, "CPU s/GiB"), (STOCK, "stock's CPU s/GiB")):
            taken = len(self.seconds[side])
            if taken:
                found[word] = self.cpu_s[side] / (taken * count * nbytes / GIB)
        if self.seconds[GISMO]:
            median_s = median(self.seconds[GISMO])
            for gbit_s in _LINES_GBIT_S:
                found[f"times an ideal {gbit_s} Gbit/s line"] = nbytes * copies * 8 / (gbit_s * 1e9) / median_s
        return found


def median(values: list[float]) -> float:
    """The middle one; the higher of two."""
    return sorted(values)[len(values) // 2]
