"""Which pools are to be looked at, and when: a queue in which each pool stands at most once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_FIRST_RETRY_S = 0.1
_LONGEST_RETRY_S = 30.0


class Due:
    """Filled by whoever sees a change, emptied by one worker. Safe to use from several threads.

    A pool that changes while it is being looked at is due again afterwards; one whose look failed comes back later each
    time, up to half a minute.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: dict[str, float] = {}  # pool → when
        self._failures: dict[str, int] = {}
        self._changed = threading.Condition()
        self._closed = False

    def add(self, pool: str, in_s: float = 0.0) -> None:
        """To be looked at in so many seconds, or earlier where that was said before."""
        with self._changed:
            at = self._clock() + in_s
            self._at[pool] = min(at, self._at.get(pool, at))
            self._changed.notify()

    def failed(self, pool: str) -> float:
        """Its look failed: again in a while. In how many seconds."""
        with self._changed:
            count = self._failures.get(pool, 0)
            self._failures[pool] = count + 1
        wait: float = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(count, 16))
        self.add(pool, wait)
        return wait

    def succeeded(self, pool: str) -> None:
        """Its next failure is the first again."""
        with self._changed:
            self._failures.pop(pool, None)

    def take(self) -> str | None:
        """The next pool, as soon as one is due; None when closed."""
        with self._changed:
            while not self._closed:
                if not self._at:
                    self._changed.wait()
                    continue
                pool = min(self._at, key=self._at.__getitem__)
                left = self._at[pool] - self._clock()
                if left <= 0:
                    del self._at[pool]
                    return pool
                self._changed.wait(left)
            return None

    def now(self) -> int:
        """How many are due and not taken yet."""
        with self._changed:
            at = self._clock()
            return sum(when <= at for when in self._at.values())

    def close(self) -> None:
        """Whoever takes gets None from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
