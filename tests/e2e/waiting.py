"""Waiting for what a cluster is to become."""

from __future__ import annotations

import time
from collections.abc import Callable

READY_S = 180.0
_LOOK_S = 0.3


def until(
    what: Callable[[], object], within_s: float = READY_S, why: Callable[[], object] = str, look_s: float = _LOOK_S
) -> None:
    """Come back when it is so. TimeoutError with what `why` says when it does not become so."""
    end = time.monotonic() + within_s
    while not what():
        if time.monotonic() > end:
            raise TimeoutError(f"not so within {within_s:.0f} s: {why()}")
        time.sleep(look_s)
