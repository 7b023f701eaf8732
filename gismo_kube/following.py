"""Does the informer still follow what it is to follow?

Every watch ends after WATCH_S and begins anew, a failed one sooner: so of every kind a request begins at least that often,
also while the API server is down. Where none does, nobody hears any more what changes, and the process has to be started
anew. What is seen here is the requests themselves, whoever makes them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

# A watch is made anew after that, lest a connection that died silently is believed for ever.
WATCH_S = 300
# What may lie between two requests beyond that: time-outs, and waiting after errors.
_BETWEEN_S = 90


class Following:
    """Of some kinds, by their plural. Safe to use from several threads."""

    def __init__(self, *plurals: str, watch_s: float = WATCH_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limit_s = watch_s + _BETWEEN_S
        self._lock = threading.Lock()
        self._began = dict.fromkeys(plurals, clock())
        self._listed: set[str] = set()

    def request(self, path: str, *, is_watch: bool) -> None:
        """A request begins, such as /apis/gismo.io/v1alpha1/gismopools."""
        plural = path.rpartition("/")[2]
        with self._lock:
            if plural in self._began:
                self._began[plural] = self._clock()
                if is_watch:  # which begins where the list ended
                    self._listed.add(plural)

    def unlisted(self) -> frozenset[str]:
        """Kinds of which it is not known yet what there is."""
        with self._lock:
            return frozenset(self._began) - self._listed

    def problems(self) -> Iterable[str]:
        """Kinds that nobody follows any more, in words."""
        now = self._clock()
        with self._lock:
            silent = {plural: now - at for plural, at in self._began.items() if now - at > self._limit_s}
        for plural, age in sorted(silent.items()):
            yield f"the watch of {plural} is dead: no request for {age:.0f} s"
