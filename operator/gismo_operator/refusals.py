"""How soon a range that the pool label refused is made anew: at once, and later each time where that one is refused too.

A range that came late over another's bytes is refused once, and the next one lies elsewhere. Where what the operator thinks
of the memory and the memory itself differ, each new one is refused as well: without a wait there would be hundreds a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from gismo_operator.api.v1alpha1 import GismoNamespace

_FIRST_S = 1.0
_LONGEST_S = 60.0
_LASTED_S = 600.0  # what was there for so long was taken


@dataclass(frozen=True, slots=True)
class _Made:
    store_uuid: str
    since: float
    times: int  # made, one soon after the other


class Refusals:
    """Remembers of each Gismo namespace how often it was made anew of late; a new one begins to count anew."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._made: dict[str, _Made] = {}  # by the name of the object

    def left_s(self, one: GismoNamespace) -> float:
        """For how long its range stays, should it be refused. To be called at each look."""
        now = self._clock()
        name, store_uuid = one.metadata.name, one.spec.store_uuid
        before = self._made.get(name)
        if before is None or before.store_uuid != store_uuid:
            self._made = {each: made for each, made in self._made.items() if now - made.since < _LASTED_S}
            before = self._made.get(name)
            self._made[name] = _Made(store_uuid, now, before.times + 1 if before is not None else 1)
        made = self._made[name]
        wait = min(_LONGEST_S, _FIRST_S * 2.0 ** min(made.times - 2, 16)) if made.times > 1 else 0.0
        return max(0.0, made.since + wait - now)
