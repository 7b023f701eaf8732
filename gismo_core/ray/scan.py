"""A scan: what the reference tables of all core workers of a cluster hold, asked of every raylet.

The call is the one behind `ray memory`: NodeManagerService.GetNodeStats(include_memory_info=True). The tables are C++,
so a process that holds its GIL answers as quickly as any other, and one without Gismo as well as one with it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from gismo_core.ray.record import TASK_ID_BYTES

_TIMEOUT_S = 10.0
# TaskStatus of common.proto. The owner's table says how a task stands while a reply of it can still come; NIL: the task
# is long over, or this is not the owner's table.
_OVER = frozenset({0, 11, 12})  # NIL, FINISHED, FAILED; compat.py checks the numbers
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a scan is made for; all IDs are Ray's binary ones."""

    tokens: Set[bytes]
    weighed: Set[bytes]  # those of the tokens of which it matters whether an entry counts, and in whose table
    tasks: Set[bytes]  # the tasks whose returns may still be under way


@dataclass(frozen=True, slots=True)
class Scan:
    """What one complete scan saw of the tokens that it was made for."""

    listed: Set[bytes]  # tokens that stand in some table, whether they count or not
    counted: dict[bytes, frozenset[bytes]]  # weighed token: the workers in whose tables it counts
    tasks: Set[bytes]  # the wanted tasks whose replies may still come: their owner has them as not over
    entries: tuple[int, ...] = ()  # in the tables of each node, in the order in which the answers were given


@dataclass(slots=True)
class Incomplete:
    """Why a scan says nothing: a node or a worker did not answer."""

    reason: str


def build(replies: Sequence[Any], wanted: Wanted) -> Scan | Incomplete:
    """A scan from the answers of all nodes. Pure. Made for tables of 10**5 entries: sets do the work, not loops."""
    listed: set[bytes] = set()
    tasks: set[bytes] = set()
    counted: dict[bytes, set[bytes]] = {}
    entries: list[int] = []
    for reply in replies:
        entries.append(0)
        if reply.num_workers != len(reply.core_workers_stats):
            return Incomplete(f"{reply.num_workers} workers, of which {len(reply.core_workers_stats)} answered")
        for stats in reply.core_workers_stats:
            worker, references = stats.worker_id, stats.object_refs
            if not worker:
                return Incomplete("a worker did not answer")
            if stats.objects_total > len(references):
                return Incomplete(
                    f"worker {worker.hex()} listed {len(references)} of its {stats.objects_total} objects"
                )
            rows = list(references)  # once: each look at the message's own list makes its entries anew
            ids = [row.object_id for row in rows]
            entries[-1] += len(ids)
            listed.update(filter(wanted.tokens.__contains__, ids))
            if wanted.tasks:
                tasks.update(
                    one[:TASK_ID_BYTES]
                    for one, row in zip(ids, rows, strict=True)
                    if one[:TASK_ID_BYTES] in wanted.tasks and row.task_status not in _OVER
                )
            if not wanted.weighed.isdisjoint(ids):
                for one, row in zip(ids, rows, strict=True):
                    if one in wanted.weighed and counts(row):
                        counted.setdefault(one, set()).add(worker)
    return Scan(
        listed,
        {token: frozenset(workers) for token, workers in counted.items()},
        tasks,
        tuple(entries),
    )


def counts(row: Any) -> bool:
    """Does the process in whose table this entry stands refer to the object itself?"""
    return bool(row.local_ref_count or row.submitted_task_ref_count or row.contained_in_owned)


class Scanner:
    """Asks the raylets of one cluster; keeps its connections."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._stubs: dict[str, tuple[Any, Any]] = {}

    def scan(self, wanted: Wanted) -> Scan | Incomplete:
        """One scan of all nodes that GCS calls alive."""
        replies = self.ask()
        return replies if isinstance(replies, Incomplete) else build(list(replies.values()), wanted)

    def ask(self) -> dict[str, Any] | Incomplete:
        """The answers of all nodes that GCS calls alive, by the raylet's address."""
        from ray.core.generated import node_manager_pb2

        try:
            nodes = [node for node in self._ray.nodes() if node["Alive"]]
        except Exception as error:  # noqa: BLE001 - Ray raises plain Exceptions while GCS is away
            return Incomplete(f"GCS does not say which nodes there are: {error}")
        if not nodes:
            return Incomplete("GCS knows no living node")
        addresses = {f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}" for node in nodes}
        for gone in self._stubs.keys() - addresses:
            self._stubs.pop(gone)[0].close()
        end = time.monotonic() + _TIMEOUT_S
        request = node_manager_pb2.GetNodeStatsRequest(include_memory_info=True)
        calls = {address: self._stub(address).GetNodeStats.future(request, timeout=_TIMEOUT_S) for address in addresses}
        replies = {}
        for address, call in calls.items():
            try:
                replies[address] = call.result(timeout=max(0.1, end - time.monotonic()))
            except Exception as error:  # noqa: BLE001 - grpc's errors have no common base worth naming
                for other in calls.values():
                    other.cancel()
                return Incomplete(f"the node at {address} does not answer: {_short(error)}")
        return replies

    def _stub(self, address: str) -> Any:
        if address not in self._stubs:
            from ray._private.grpc_utils import init_grpc_channel
            from ray.core.generated import node_manager_pb2_grpc

            channel = init_grpc_channel(address, options=_OPTIONS)
            self._stubs[address] = channel, node_manager_pb2_grpc.NodeManagerServiceStub(channel)
        return self._stubs[address][1]

    def close(self) -> None:
        """Close the connections."""
        for channel, _ in self._stubs.values():
            channel.close()
        self._stubs.clear()


def _short(error: Exception) -> str:
    code = getattr(error, "code", None)
    return str(code()) if callable(code) else f"{type(error).__name__}: {error}"
