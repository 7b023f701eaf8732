"""Is this agent well? What /livez and /readyz say; docs/kubernetes.md has the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

# A round ends within seconds but for formatting and zeroing, which beat as they go on.
ROUND_S = 300.0
# The kubelet's folder is looked at four times a second; a registration takes 5 s at most.
LOOK_S = 60.0


class Beat:
    """Of something that goes on: it is alive while it beats."""

    def __init__(self, what: str, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._limit_s = limit_s
        self._clock = clock
        self._at = clock()

    def __call__(self, *_: object) -> None:
        """It goes on."""
        self._at = self._clock()

    def problems(self) -> Iterable[str]:
        """In words; nothing where it goes on."""
        age = self._clock() - self._at
        if age > self._limit_s:
            yield f"{self._what} stands still since {age:.0f} s"
