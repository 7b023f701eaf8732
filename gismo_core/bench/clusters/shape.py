"""What a cluster of the benchmark is like. The one with Gismo and the stock one are always of the same shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """Nodes on this machine, each with a raylet and a plasma store of its own; the driver is on the first."""

    nodes: int
    plasma_bytes: int
    """Of each node, in both clusters."""
    pool_bytes: int
    """Of the Gismo store."""
    cpus: int = 1
    """Of each node."""
    warm: bool = True
    """Whether stock's plasma is allocated beforehand, as the pool is populated: its best."""
    warm_both: bool = False
    """Whether that of the cluster with Gismo is too: where it is used, and there is memory for it."""
    env: Mapping[str, str] = field(default_factory=dict)

    def needs_bytes(self, *, together: bool = True) -> int:
        """Memory that the stores may take at most, by whether both clusters live at the same time."""
        plasma = self.nodes * self.plasma_bytes
        if together and self.warm_both:
            return self.pool_bytes + 2 * plasma
        return self.pool_bytes + plasma if together else max(self.pool_bytes, plasma)

    def as_json(self) -> dict[str, Any]:
        """For the process that starts the cluster."""
        return {"nodes": self.nodes, "plasma_bytes": self.plasma_bytes, "cpus": self.cpus}
