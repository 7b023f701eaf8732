"""What one run of a scenario came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Outcome:
    """Goes from the process that runs scenarios to the one that judges them, as JSON."""

    scenario: str
    kill: str
    seed: int
    lost: list[str] = field(default_factory=list)  # each value that came wrong or not at all, in words
    leaked: int = 0  # records left when nothing referred to them any more
    broken: str = ""  # why the run proves nothing: something else failed, or nothing went through the store
    records: int = 0  # the most records that were seen in the store at once
    wall_s: float = 0.0
    freed_s: float = 0.0  # from the last reference dropped to the last record gone
    clean: bool = True  # the cluster can be used again after a broken keeper
    ray_version: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Nothing lost, nothing leaked, and the run proves it."""
        return not (self.lost or self.leaked or self.broken)

    def as_json(self) -> dict[str, Any]:
        """For json.dumps."""
        return asdict(self)
