"""Collecting: the thread of the keeper that scans and frees. What may be freed is decided in collector.py."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gismo_core
from gismo_core import errors
from gismo_core.ray import clusters, collector, record, scan
from gismo_core.ray.index import Index
from gismo_core.ray.listing import Listing

logger = logging.getLogger("gismo.ray")

_PAIR = 2  # scans that it takes to free
_FRESH_S = 60.0  # a scan that is older is not the first of a pair
_AUDIT_S = 30.0
_SETTLE_S = 0.002  # proposals that come together are scanned for together
_AGAIN_S = 0.05  # after a scan that was incomplete
_FAILED_S = 1.0
_GC_SHARE = 0.7
_GC_EVERY_S = 30.0
_LOOK_S = 0.02  # how soon a full pool is seen while the budget is waited for
# What an answer costs a node: its raylet, its workers, and the threads that receive it here. Measured, see
# docs/results.md.
_ANSWER_S = 1.5e-3
_ENTRY_S = 0.78e-6


@dataclass(slots=True)
class Figures:
    """What was done since the keeper started."""

    scans: int = 0
    incomplete_scans: int = 0
    scan_cpu_s: float = 0.0  # of the node that scans cost most
    freed: int = 0
    freed_bytes: int = 0
    swept: int = 0  # of those, records of dead clusters
    incomplete: str | None = None  # why the last scan was, or None if it was not


class Collecting:
    """One thread that frees the records of one cluster; made by the keeper."""

    def __init__(self, ray: Any, store: gismo_core.Store, cluster: bytes, worker: bytes, global_gc: Callable[[], None]):
        self._store = store
        self._cluster = cluster
        self._keepers = frozenset({worker})
        self._global_gc = global_gc
        self._scanner = scan.Scanner(ray)
        self._listing = Listing(store, cluster)
        self._memory = collector.Memory()
        self._listed: Index | None = None  # after the scan before, if that will do
        self._budget = collector.Budget()
        self._poison = _poison(store)
        self._work = threading.Event()
        self._delivered: deque[bytes] = deque()  # said by others, not yet taken note of
        self._full = False
        self._scanned_at = 0.0
        self._audit_at = 0.0  # at once: there may be records of clusters that ended before this one
        self._gc_at = 0.0
        self.figures = Figures()
        threading.Thread(target=self._for_ever, name="gismo-collect", daemon=True).start()

    def propose(self, delivered: Sequence[bytes] = ()) -> None:
        """A token went out of scope somewhere; these records (raw handles) were read, so they are delivered."""
        self._delivered.extend(delivered)
        self._work.set()

    def pool_is_full(self) -> None:
        """Look at all records now, whatever the budget says."""
        self._full = True
        self._work.set()

    def nodes(self) -> tuple[bytes, ...]:
        """The nodes that wrote the records there are: they have the pool."""
        return self._listing.nodes()

    def held(self) -> tuple[int, int]:
        """(records of the cluster, bytes of the store that are in use by whomever), as of now."""
        return self._listing.count(), self._store.stats().used_bytes

    def _for_ever(self) -> None:
        scans_left = 0  # until what was proposed has had its pair
        while True:
            try:
                if not scans_left:
                    self._work.wait(timeout=max(0.0, self._audit_at - time.monotonic()))
                    time.sleep(_SETTLE_S)
                self._wait_for_the_budget()
                full, self._full = self._full, False
                audit = full or time.monotonic() >= self._audit_at
                if self._work.is_set() or audit:
                    self._work.clear()
                    scans_left = _PAIR  # the scan before began before this was proposed
                if audit:
                    self._sweep()
                    self._audit_at = time.monotonic() + _AUDIT_S
                scans_left = max(0, scans_left - 1)
                self._collect(scans_follow=bool(scans_left))
                if not full:
                    self._collect_garbage()
            except Exception:
                # This thread is all that frees: whatever happened, it goes on, and says so.
                logger.exception("Gismo: collecting failed; it goes on in a second")
                self._memory.forget()
                time.sleep(_FAILED_S)
                self._work.set()

    def _wait_for_the_budget(self) -> None:
        end = time.monotonic() + self._budget.wait_s(time.monotonic())
        while not self._full and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_S))

    def _collect_garbage(self) -> None:
        """Ray collects Python's cyclic garbage when plasma fills, which it does not any more."""
        now = time.monotonic()
        if now < self._gc_at:
            return
        stats = self._store.stats()
        if stats.used_bytes > _GC_SHARE * stats.data_bytes:
            self._gc_at = now + _GC_EVERY_S
            self._global_gc()

    def _collect(self, *, scans_follow: bool) -> None:
        """One scan, and what it and the one before let us free. scans_follow: another one is asked for already."""
        start_cpu = time.thread_time()
        if time.monotonic() - self._scanned_at > _FRESH_S:
            self._memory.forget()
        records = self._listed or self._listing.own()[0]
        self._listed = None
        if not records:
            self._memory.forget()
            return
        while self._delivered:
            self._memory.delivered.add(self._delivered.popleft())
        seen = self._scanner.scan(collector.wanted(records, self._memory.delivered))
        self._scanned_at = time.monotonic()
        self.figures.scans += 1
        if isinstance(seen, scan.Incomplete):
            self.figures.incomplete = seen.reason
            self.figures.incomplete_scans += 1
            self._memory.forget()
            self._charge(time.thread_time() - start_cpu, ())
            logger.debug("Gismo: a scan was incomplete, so nothing is freed: %s", seen.reason)
            time.sleep(_AGAIN_S)
            self._work.set()
            return
        self.figures.incomplete = None
        unreferred = collector.proposals(self._memory, records, seen, self._keepers)
        unneeded: set[bytes] = set()
        if unreferred:
            after, pinned = self._listing.own()
            unneeded = collector.without_named(unreferred, after, pinned)
        self._charge(time.thread_time() - start_cpu, seen.entries)
        for raw in unneeded:  # not charged: whoever keeps objects has to free them
            self._free(raw)
        self._listing.forget(unneeded)
        if unreferred and scans_follow:
            # What was listed after this scan was listed before the next one. Only what is newer than this has to wait
            # for the one after, and while scans follow one another that is what the budget can pay.
            self._listed = after

    def _charge(self, own_s: float, entries: tuple[int, ...]) -> None:
        """The budget is each node's. Ours is not known to be another than the one with the longest answer."""
        cost_s = own_s + _ANSWER_S + max(entries, default=0) * _ENTRY_S
        self.figures.scan_cpu_s += cost_s
        self._budget.charge(cost_s, time.monotonic())

    def _sweep(self) -> None:
        """Delete the records of clusters that are dead."""
        own = self._cluster.hex()
        for handle in clusters.sweep(self._store, self._listing.others, own, clusters.gcs_is_gone):
            self.figures.swept += self._free(handle.raw)

    def _free(self, raw: bytes) -> int:
        handle = record.handle_of(raw)
        if self._poison is not None:
            self._poison(handle)
        try:
            self._store.delete(handle)
        except errors.ObjectGone:
            return 0
        self.figures.freed += 1
        self.figures.freed_bytes += handle.length
        return 1


def _poison(store: gismo_core.Store) -> Callable[[gismo_core.Handle], None] | None:
    """For tests: where an object called "gismo-ray-poison" is in the store, freed payloads are overwritten first, so
    that a wrong free cannot hide. None otherwise."""
    try:
        store.lookup("gismo-ray-poison")
    except errors.GismoError:
        return None
    import mmap

    file = open(store.path.removeprefix("file:"), "r+b")  # noqa: SIM115 - for as long as the process lives
    memory = mmap.mmap(file.fileno(), 0)

    def poison(handle: gismo_core.Handle) -> None:
        memory[handle.offset : handle.offset + handle.length] = b"\xdb" * handle.length

    return poison
