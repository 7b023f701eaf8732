"""What Ray keeps in a store, and who holds it: for `gismo top` and `gismo fsck --ray`.

The first half reads the headers of records and needs no Ray. The second asks a cluster's reference tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gismo_core
from gismo_core.ray import answer, record, scan
from gismo_core.ray.listing import read_header
from gismo_core.ray.record import Header, Kind
from gismo_core.records import ObjectState

_KIND = {Kind.PUT: "put", Kind.ARGUMENT: "argument", Kind.RETURN: "return"}


@dataclass(frozen=True, slots=True)
class Held:
    """One record. IDs as Ray writes them, in hexadecimal; `name` is the task's or actor method's, empty for a driver."""

    handle: gismo_core.Handle
    nbytes: int
    created_unix_ns: int
    kind: str  # "put", "argument" or "return"
    job: str
    name: str
    actor: str | None
    node: str
    worker: str
    cluster: str
    token: str
    task: str
    foreign: tuple[str, ...]  # handles of other records that it has buffers in
    pins_here: int
    pinned_hosts: tuple[int, ...]

    @property
    def made_by(self) -> str:
        """For people: "task make", "actor Keep.make", "driver"."""
        if not self.name:
            return "driver"
        return f"{'actor' if self.actor else 'task'} {self.name}"


class Book:
    """Lists the records of a store; reads the header of each only once."""

    def __init__(self, store: gismo_core.Store) -> None:
        self._store = store
        self._known: dict[bytes, Header | None] = {}

    def held(self) -> list[Held]:
        """All records of all clusters, the largest first."""
        found: list[Held] = []
        still: dict[bytes, Header | None] = {}
        for one in self._store.objects():
            if one.state != ObjectState.SEALED or one.tag & record.TAG_MASK != record.TAG:
                continue
            raw = one.handle.raw
            header = still[raw] = self._known[raw] if raw in self._known else read_header(self._store, raw)
            if header is not None:
                found.append(_held(one, header))
        self._known = still
        found.sort(key=lambda held: held.nbytes, reverse=True)
        return found


def _held(one: gismo_core.ObjectInfo, header: Header) -> Held:
    return Held(
        handle=one.handle,
        nbytes=one.extent_bytes,
        created_unix_ns=one.created_unix_ns,
        kind=_KIND[header.kind],
        job=header.job.hex(),
        name=header.name,
        actor=header.actor.hex() if any(header.actor) else None,
        node=header.node.hex(),
        worker=header.worker.hex(),
        cluster=header.cluster.hex(),
        token=header.token.hex(),
        task=header.task.hex(),
        foreign=tuple(str(record.handle_of(raw)) for raw in header.foreign),
        pins_here=one.pins_here,
        pinned_hosts=one.pinned_hosts,
    )


# ---- who holds it: with a connection to the cluster -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holder:
    """A process in whose reference table a token counts. `node` is empty where the node is unknown."""

    worker: str
    pid: int
    node: str
    address: str  # IP address
    what: str  # "driver", "worker", "actor …"
    local: int  # references of Python objects
    submitted: int  # arguments of tasks that are under way
    contained: int  # inside objects that this process owns

    @property
    def text(self) -> str:
        """For people."""
        ways = [("local", self.local), ("submitted", self.submitted), ("contained", self.contained)]
        counts = ", ".join(f"{count} {name}" for name, count in ways if count)
        return f"{self.what} pid {self.pid} on {self.node[:12] or self.address} ({counts})"


@dataclass(frozen=True, slots=True)
class Holding:
    """What one scan says of some records."""

    holders: Mapping[str, tuple[Holder, ...]]  # by token
    listed: frozenset[str]  # tokens in some table, whether they count or not
    tasks: frozenset[
        str
    ]  # of those asked for: producing tasks that some ObjectID names, so their replies may be under way
    problem: str | None = None  # why the scan is incomplete: then it says too little


class Asker:
    """Asks the reference tables of one cluster; keeps its connections."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._scanner = scan.Scanner(ray)

    def ask(self, held: Iterable[Held]) -> Holding:
        """Who holds these records."""
        tokens = {bytes.fromhex(one.token) for one in held}
        tasks = {bytes.fromhex(one.task) for one in held}
        replies = self._scanner.ask()
        if isinstance(replies, scan.Incomplete):
            return Holding({}, frozenset(), frozenset(), replies.reason)
        built = scan.build(list(replies.values()), scan.Wanted(tokens, set(), tasks))
        problem = built.reason if isinstance(built, scan.Incomplete) else None
        seen = scan.Scan(tokens, {}, frozenset()) if isinstance(built, scan.Incomplete) else built
        nodes = {
            f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}": str(node["NodeID"]) for node in self._ray.nodes()
        }
        found: dict[str, list[Holder]] = {}
        for address, reply in replies.items():
            for stats in reply.core_workers_stats:
                rows = list(stats.object_refs)
                for object_id, row in answer.each(rows, answer.ids(rows)):
                    if object_id not in tokens:
                        continue
                    entry = answer.entry(row)
                    counts = entry.local_ref_count, entry.submitted_task_ref_count, len(entry.contained_in_owned)
                    if any(counts):
                        holder = _holder(stats, nodes.get(address, ""), counts)
                        found.setdefault(object_id.hex(), []).append(holder)
        return Holding(
            {token: tuple(holders) for token, holders in found.items()},
            frozenset(token.hex() for token in tokens - seen.unlisted),
            frozenset(task.hex() for task in seen.tasks),
            problem,
        )


def _holder(stats: Any, node: str, counts: tuple[int, int, int]) -> Holder:
    from ray.core.generated import common_pb2

    if stats.worker_type == common_pb2.DRIVER:
        what = "driver"
    elif any(byte != 0xFF for byte in stats.actor_id):
        what = f"actor {stats.actor_id.hex()[:12]}"
    else:
        what = "worker"
    return Holder(stats.worker_id.hex(), stats.pid, node, stats.ip_address, what, *counts)


def why_held(one: Held, holding: Holding, named_by: Mapping[str, str], cluster: str) -> str:
    """For people: what keeps a record. named_by: foreign handle → handle of a record that names it."""
    if one.cluster != cluster:
        return "another Ray cluster"
    holders = holding.holders.get(one.token, ())
    if holders:
        more = f", and {len(holders) - 3} more" if len(holders) > 3 else ""
        return "; ".join(holder.text for holder in holders[:3]) + more
    if holding.problem:
        return "unknown: the scan was incomplete"
    if str(one.handle) in named_by:
        return f"record {named_by[str(one.handle)]} has buffers in it"
    if one.kind == "return" and one.task in holding.tasks:
        return "its task's reply may be under way"
    if one.kind != "return" and one.token in holding.listed:
        return "the lineage of a task that may have to run again"
    if one.pins_here or one.pinned_hosts:
        return "a process that still maps it"
    return "nobody: it will be freed"


def named(held: Iterable[Held]) -> dict[str, str]:
    """For why_held: which records are named as foreign extents, and by which."""
    return {foreign: str(one.handle) for one in held for foreign in one.foreign}
