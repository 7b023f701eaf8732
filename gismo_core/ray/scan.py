"""A scan: what the reference tables of all core workers of a cluster hold, asked of every raylet.

The call is the one behind `ray memory`: NodeManagerService.GetNodeStats(include_memory_info=True). The tables are C++,
so a process that holds its GIL answers as quickly as any other, and one without Gismo as well as one with it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from typing import Any

from gismo_core.ray import answer
from gismo_core.ray.record import TASK_ID_BYTES

_TIMEOUT_S = 10.0
# TaskStatus of common.proto. The owner's table says how a task stands while a reply of it can still come; NIL: the task
# is long over, or this is not the owner's table.
_OVER = frozenset({0, 11, 12})  # NIL, FINISHED, FAILED; compat.py checks the numbers
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a scan is made for; all IDs are Ray's binary ones."""

    tokens: Collection[bytes]  # those of which it matters whether any table lists them
    weighed: Set[bytes]  # those of which it matters whether an entry counts, and in whose table
    tasks: Set[bytes]  # the tasks whose returns may still be under way


@dataclass(frozen=True, slots=True)
class Scan:
    """What one complete scan saw of the tokens that it was made for."""

    unlisted: Set[bytes]  # of the tokens: those that stand in no table, whether they count there or not
    counted: dict[bytes, frozenset[bytes]]  # weighed token: the workers in whose tables it counts
    tasks: Set[bytes]  # the wanted tasks whose replies may still come: their owner has them as not over
    entries: tuple[int, ...] = ()  # in the tables of each node, in the order in which the answers were given


@dataclass(slots=True)
class Incomplete:
    """Why a scan says nothing: a node or a worker did not answer."""

    reason: str


def build(replies: Sequence[Any], wanted: Wanted) -> Scan | Incomplete:
    """A scan from the answers of all nodes (see answer.py). Pure. Made for tables of 10**5 entries."""
    import numpy as np

    listed = []
    tasks: set[bytes] = set()
    counted: dict[bytes, set[bytes]] = {}
    entries: list[int] = []
    for reply in replies:
        entries.append(0)
        if reply.num_workers != len(reply.core_workers_stats):
            return Incomplete(f"{reply.num_workers} workers, of which {len(reply.core_workers_stats)} answered")
        for stats in reply.core_workers_stats:
            worker, rows = stats.worker_id, list(stats.object_refs)  # once: each look at the list makes its bytes anew
            if not worker:
                return Incomplete("a worker did not answer")
            if stats.objects_total > len(rows):
                return Incomplete(f"worker {worker.hex()} listed {len(rows)} of its {stats.objects_total} objects")
            entries[-1] += len(rows)
            ids = answer.ids(rows)
            listed.append(ids)
            if wanted.weighed or wanted.tasks:
                for one, row in answer.each(rows, ids):
                    is_weighed, task = one in wanted.weighed, one[:TASK_ID_BYTES]
                    if not is_weighed and task not in wanted.tasks:
                        continue
                    entry = answer.entry(row)
                    if is_weighed and counts(entry):
                        counted.setdefault(one, set()).add(worker)
                    if task in wanted.tasks and entry.task_status not in _OVER:
                        tasks.add(task)
    return Scan(
        answer.missing(wanted.tokens, np.concatenate(listed) if listed else answer.ids(())),
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
        self._methods: dict[str, tuple[Any, Any]] = {}  # by the raylet's address: channel and call

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
        for gone in self._methods.keys() - addresses:
            self._methods.pop(gone)[0].close()
        end = time.monotonic() + _TIMEOUT_S
        request = node_manager_pb2.GetNodeStatsRequest(include_memory_info=True)
        calls = {address: self._method(address).future(request, timeout=_TIMEOUT_S) for address in addresses}
        replies = {}
        for address, call in calls.items():
            try:
                replies[address] = call.result(timeout=max(0.1, end - time.monotonic()))
            except Exception as error:  # noqa: BLE001 - grpc's errors have no common base worth naming
                for other in calls.values():
                    other.cancel()
                return Incomplete(f"the node at {address} does not answer: {_short(error)}")
        return replies

    def _method(self, address: str) -> Any:
        if address not in self._methods:
            from ray._private.grpc_utils import init_grpc_channel

            channel, (path, *how) = init_grpc_channel(address, options=_OPTIONS), answer.call()
            self._methods[address] = channel, channel.unary_unary(path, *how)
        return self._methods[address][1]

    def close(self) -> None:
        """Close the connections."""
        for channel, _ in self._methods.values():
            channel.close()
        self._methods.clear()


def _short(error: Exception) -> str:
    code = getattr(error, "code", None)
    return str(code()) if callable(code) else f"{type(error).__name__}: {error}"
