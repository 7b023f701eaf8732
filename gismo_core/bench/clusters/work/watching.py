"""Any piece of work, with the most that all stores held meanwhile."""

from __future__ import annotations

import importlib
import threading
from typing import Any

from gismo_core.bench.clusters.work.cluster import Here

_EVERY_S = 0.1


def watch(here: Here, what: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Do "MODULE.FUNCTION"; its answer, the peak of what was in use in the pool and all plasma stores together, and
    what was spilled, bytes."""
    module, _, function = what.partition(".")
    work = getattr(importlib.import_module(f"gismo_core.bench.clusters.work.{module}"), function)
    over = threading.Event()
    peak = [0]
    before = here.use()

    def look() -> None:
        while True:
            use = here.use()
            peak[0] = max(peak[0], use.pool_bytes + use.plasma_bytes)
            if over.wait(_EVERY_S):
                return

    watcher = threading.Thread(target=look, name="watch", daemon=True)
    watcher.start()
    try:
        answer = work(here, **arguments)
    finally:
        over.set()
        watcher.join()
    after = here.use()  # also what it holds at its end, if it was too quick to be seen
    return {
        "answer": answer,
        "peak_bytes": max(peak[0], after.pool_bytes + after.plasma_bytes),
        "spilled_bytes": after.spilled_bytes - before.spilled_bytes,
    }
