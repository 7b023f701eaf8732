"""The keeper: a detached actor that owns the tokens of returns, scans the cluster, and frees records.

One per Ray cluster and store, made by the first process that needs it, restarted by Ray when it dies. It holds nothing
that cannot be lost: the records are in the store, the truth about references is in the tables that it scans.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import gismo_core
from gismo_core import errors
from gismo_core.ray import clusters, collector, record, scan
from gismo_core.ray.record import Header

if TYPE_CHECKING:
    from gismo_core.ray.session import Session

logger = logging.getLogger("gismo.ray")

NAMESPACE = "gismo"
_AUDIT_S = 30.0
_SETTLE_S = 0.002  # proposals that come together are scanned for together
_GC_SHARE = 0.7
_GC_EVERY_S = 30.0
# What a raylet and its workers spend on a scan, per byte of their answers; measured, see docs/results.md.
_REMOTE_S_PER_BYTE = 25e-9


# Ray puts even an empty object into plasma, through the raylet, unless this says otherwise: 500 us against 15.
_ENVIRONMENT = {"RAY_put_small_object_in_memory_store": "1"}


def name_of(store_uuid: object) -> str:
    """The name of the keeper's actor."""
    return f"gismo-keeper-{store_uuid}"


def find_or_make(session: Session) -> Any:
    """The handle of the cluster's keeper."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    import ray

    name = name_of(session.store.info.store_uuid)
    with contextlib.suppress(ValueError):
        return ray.get_actor(name, namespace=NAMESPACE)
    # Here, where there is a pool; elsewhere if this node goes.
    here = NodeAffinitySchedulingStrategy(session.identity.node.hex(), soft=True)
    return (
        ray.remote(Keeper)
        .options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=0,
            scheduling_strategy=here,
            runtime_env={"env_vars": _ENVIRONMENT},
        )
        .remote()
    )


class Records:
    """The records of one cluster in the store; reads the header of each only once."""

    def __init__(self, store: gismo_core.Store, cluster: bytes) -> None:
        self._store = store
        self._cluster = cluster
        self._known: dict[bytes, Header | None] = {}  # None: damaged

    def list(self) -> tuple[dict[bytes, Header], set[bytes]]:
        """(records by raw handle, those of them that a process of this host pins)."""
        found: dict[bytes, Header] = {}
        pinned: set[bytes] = set()
        still: dict[bytes, Header | None] = {}
        known = self._known
        for one in self._store.sealed(tag=record.TAG, mask=record.TAG_MASK):
            raw = one.raw_handle
            header = known[raw] if raw in known else self._read(one.handle)
            still[raw] = header
            if header is not None and header.cluster == self._cluster:
                found[raw] = header
                if one.pins_here:
                    pinned.add(raw)
        self._known = still
        return found, pinned

    def _read(self, handle: gismo_core.Handle) -> Header | None:
        try:
            head = self._store.peek(handle, record.HEADER.size)
            count = record.foreign_count(head)
            if count and head[:8] == record.MAGIC:
                head = self._store.peek(handle, record.HEADER.size + count * record.HANDLE_BYTES)
            header = Header.unpack(head)
        except (errors.ObjectGone, errors.InvalidArgument, errors.CorruptStore) as error:
            logger.debug("Gismo: %s is no record: %s", handle, error)
            return None
        return header

    def others(self) -> dict[bytes, bytes]:
        """The records of other clusters, as listed now: raw handle → cluster."""
        self.list()
        return {
            raw: one.cluster for raw, one in self._known.items() if one is not None and one.cluster != self._cluster
        }


class Keeper:
    """The actor. `ray.remote` is applied where it is made, so that importing this needs no Ray."""

    def __init__(self) -> None:
        import ray
        from gismo_core.ray import session

        self._ray = ray
        here = session.current()
        if here is None:
            raise RuntimeError(
                f"the Gismo keeper was started where the store cannot be opened: {session.failure()}; it needs the "
                "pool and GISMO_STORE on the node of the process that made it"
            )
        here.is_keeper = True
        self._session = here
        self._work = threading.Event()
        self._proposed = self._full = False
        self.scans = self.freed = self.freed_bytes = self.leased = self.swept = 0
        self.incomplete: str | None = None
        self.scan_cpu_s = 0.0
        self._records = Records(here.store, here.identity.cluster)
        self._memory = collector.Memory()
        self._budget = collector.Budget()
        self._poison = _poison(here.store)
        threading.Thread(target=self._collect_for_ever, name="gismo-collect", daemon=True).start()

    # ---- called by others ------------------------------------------------------------------------

    def lease(self, count: int) -> list[Any]:
        """So many tokens, made now; once the reply is written, they are the caller's alone."""
        self.leased += count
        return [self._make_token() for _ in range(count)]

    def poke(self) -> None:
        """A token went out of scope in another process."""
        self._proposed = True
        self._work.set()

    def full(self) -> None:
        """The pool is full: look at all records now, whatever the budget says."""
        self._full = True
        self._work.set()

    def status(self) -> dict[str, Any]:
        """Figures for people and tests."""
        return {
            "scans": self.scans,
            "freed": self.freed,
            "freed_bytes": self.freed_bytes,
            "incomplete": self.incomplete,
            "scan_cpu_s": self.scan_cpu_s,
            "leased": self.leased,
            "swept": self.swept,
            "node": self._session.identity.node.hex(),
        }

    # ---- tokens ----------------------------------------------------------------------------------

    def _make_token(self) -> Any:
        token = self._ray.put(b"")
        self._session.core_worker.add_object_out_of_scope_callback(token, self._on_out_of_scope)
        return token

    def _on_out_of_scope(self, _: bytes) -> None:
        self._proposed = True
        self._work.set()

    # ---- collecting ------------------------------------------------------------------------------

    def _collect_for_ever(self) -> None:
        scanner = scan.Scanner(self._ray)
        audit_at = 0.0  # at once: there may be records of clusters that ended before this one
        gc_at = 0.0
        while True:
            self._work.wait(timeout=max(0.0, audit_at - time.monotonic()))
            try:
                if self._work.is_set() and not self._full:
                    time.sleep(_SETTLE_S)
                    wait_s = self._budget.wait_s(time.monotonic())
                    if wait_s > 0:
                        self._work.clear()
                        self._wait_unless_full(wait_s)
                self._work.clear()
                full, self._full = self._full, False
                self._proposed = False
                self._memory.forget()
                if full or time.monotonic() >= audit_at:
                    self._sweep()
                self._collect(scanner)
                # The second scan of the pair; what it proposes, a third pair will not have to.
                self._collect(scanner)
                audit_at = time.monotonic() + _AUDIT_S
                now = time.monotonic()
                if now >= gc_at and not full and self._used_share() > _GC_SHARE:
                    gc_at = now + _GC_EVERY_S
                    self._session.core_worker.global_gc()
            except Exception:
                # This thread is all that frees: whatever happened, it goes on, and says so.
                logger.exception("Gismo: collecting failed; it goes on in a second")
                self._memory.forget()
                time.sleep(1.0)

    def _wait_unless_full(self, wait_s: float) -> None:
        end = time.monotonic() + wait_s
        while not self._full and (left := end - time.monotonic()) > 0:
            self._work.wait(timeout=left)
            self._work.clear()

    def _used_share(self) -> float:
        stats = self._session.store.stats()
        return stats.used_bytes / max(1, stats.data_bytes)

    def _collect(self, scanner: scan.Scanner) -> int:
        """One scan, and what it lets us free; how many that were."""
        start_cpu = time.thread_time()
        records, _ = self._records.list()
        if not records:
            self._memory.forget()
            return 0
        tokens, tasks = collector.tokens_and_tasks(records, self._memory.delivered)
        seen = scanner.scan(tokens, tasks)
        self.scans += 1
        if isinstance(seen, scan.Incomplete):
            self.incomplete = seen.reason
            self._memory.forget()
            self._charge(time.thread_time() - start_cpu)
            logger.debug("Gismo: a scan was incomplete, so nothing is freed: %s", seen.reason)
            time.sleep(0.05)
            self._work.set()
            return 0
        self.incomplete = None
        unreferred = collector.proposals(self._memory, records, seen, {self._session.identity.worker})
        freed = 0
        if unreferred:
            after, pinned = self._records.list()
            for raw in collector.without_named(unreferred, after, pinned):
                freed += self._free(raw)
        self._charge(time.thread_time() - start_cpu + seen.reply_bytes * _REMOTE_S_PER_BYTE)
        return freed

    def _sweep(self) -> None:
        """Delete the records of clusters that are dead."""
        own = self._session.identity.cluster.hex()
        for handle in clusters.sweep(self._session.store, self._records.others, own, clusters.gcs_is_gone):
            self.swept += self._free(handle.raw)

    def _charge(self, cost_s: float) -> None:
        self.scan_cpu_s += cost_s
        self._budget.charge(cost_s, time.monotonic())

    def _free(self, raw: bytes) -> int:
        handle = record.handle_of(raw)
        if self._poison is not None:
            self._poison(handle)
        try:
            self._session.store.delete(handle)
        except errors.ObjectGone:
            return 0
        self.freed += 1
        self.freed_bytes += handle.length
        return 1


def _poison(store: gismo_core.Store) -> Any:
    """For tests: where an object called "gismo-ray-poison" is in the store, freed payloads are overwritten first, so
    that a wrong free cannot hide. None otherwise."""
    try:
        store.lookup("gismo-ray-poison")
    except errors.GismoError:
        return None
    import mmap

    path = store.path.removeprefix("file:")
    file = open(path, "r+b")  # noqa: SIM115 - as long as the process
    memory = mmap.mmap(file.fileno(), 0)

    def poison(handle: gismo_core.Handle) -> None:
        memory[handle.offset : handle.offset + handle.length] = b"\xdb" * handle.length

    return poison
