"""Figures for Prometheus, on Ray's own endpoint, through ray.util.metrics. docs/ray.md, Seeing, lists them.

Ray puts "ray_" before each name. Figures of the store come from the keeper alone, so that none is counted twice.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from gismo_core.ray.collecting import Collecting

logger = logging.getLogger("gismo.ray")

_REPORT_S = 5.0

_COUNTERS = {
    "freed": ("gismo_freed_total", "Objects that the keeper has freed."),
    "scans": ("gismo_scans_total", "Scans of the cluster's reference tables."),
    "scan_cpu_s": ("gismo_scan_cpu_seconds_total", "CPU time of scans, of the node that they cost most."),
    "incomplete_scans": ("gismo_incomplete_scans_total", "Scans in which a node or worker did not answer."),
}


class Reporter(threading.Thread):
    """Reports every few seconds what the keeper knows."""

    def __init__(self, collecting: Collecting) -> None:
        super().__init__(name="gismo-metrics", daemon=True)
        self._collecting = collecting

    def run(self) -> None:
        """For as long as the process lives."""
        from ray.util.metrics import Counter, Gauge

        records = Gauge("gismo_records", description="Objects that this Ray cluster keeps in the Gismo store.")
        used = Gauge("gismo_used_bytes", description="Bytes of the Gismo store that are in use, by whomever.")
        counters = {field: Counter(name, description=text) for field, (name, text) in _COUNTERS.items()}
        told = dict.fromkeys(_COUNTERS, 0.0)
        while True:
            try:
                now_records, now_used = self._collecting.held()
                records.set(now_records)
                used.set(now_used)
                for field, counter in counters.items():
                    grown = getattr(self._collecting.figures, field) - told[field]
                    if grown > 0:
                        counter.inc(grown)
                        told[field] += grown
            except Exception as error:  # noqa: BLE001 - figures are not worth a keeper, and may work the next time
                logger.debug("Gismo: reporting metrics failed: %s", error)
            time.sleep(_REPORT_S)


class _Fallbacks:
    counter: ClassVar[Any] = None
    lock: ClassVar[threading.Lock] = threading.Lock()


def fell_back(reason: str) -> None:
    """This process gave a value of 100 KiB or more to Ray's own store: "no token", "full", "not contiguous", "error".

    A few microseconds, on the way of large values only.
    """
    try:
        if _Fallbacks.counter is None:
            with _Fallbacks.lock:
                if _Fallbacks.counter is None:
                    from ray.util.metrics import Counter

                    text = "Values of 100 KiB and more that went to Ray's own store instead of Gismo's."
                    _Fallbacks.counter = Counter("gismo_fallbacks_total", description=text, tag_keys=("reason",))
        _Fallbacks.counter.inc(1, tags={"reason": reason})
    except Exception as error:  # noqa: BLE001 - a figure must not break a user's put
        logger.debug("Gismo: counting a fallback failed: %s", error)
