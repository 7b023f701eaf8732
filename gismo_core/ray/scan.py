"""A scan: what the reference tables of all core workers of a cluster hold, asked of every raylet.

The call is the one behind `ray memory`: NodeManagerService.GetNodeStats(include_memory_info=True). The tables are C++,
so a process that holds its GIL answers as quickly as any other, and one without Gismo as well as one with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Any

from gismo_core.ray.record import TASK_ID_BYTES

_TIMEOUT_S = 10.0
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@dataclass(frozen=True, slots=True)
class Scan:
    """What one complete scan saw of the tokens that it was made for. All IDs are Ray's binary ones."""

    counted: dict[bytes, frozenset[bytes]]  # token: the workers in whose tables it counts
    listed: frozenset[bytes]  # tokens that stand in some table, whether they count or not
    tasks: frozenset[bytes]  # the TaskIDs (of those asked for) that some ObjectID begins with
    entries: int = 0
    reply_bytes: int = 0


@dataclass(slots=True)
class Incomplete:
    """Why a scan says nothing: a node or a worker did not answer."""

    reason: str


@dataclass(slots=True)
class _Builder:
    tokens: Set[bytes]
    tasks: Set[bytes]
    counted: dict[bytes, set[bytes]] = field(default_factory=dict)
    listed: set[bytes] = field(default_factory=set)
    seen_tasks: set[bytes] = field(default_factory=set)
    entries: int = 0
    reply_bytes: int = 0

    def add(self, reply: Any) -> str | None:
        """Take one node's answer; what is missing in it, or None."""
        if reply.num_workers != len(reply.core_workers_stats):
            return f"{reply.num_workers} workers, of which {len(reply.core_workers_stats)} answered"
        tokens, tasks, listed, counted, seen = self.tokens, self.tasks, self.listed, self.counted, self.seen_tasks
        prefixes: set[bytes] = set()
        for stats in reply.core_workers_stats:
            worker = stats.worker_id
            if not worker:
                return "a worker did not answer"
            references = stats.object_refs
            if stats.objects_total > len(references):
                return f"worker {worker.hex()} listed {len(references)} of its {stats.objects_total} objects"
            self.entries += len(references)
            for entry in references:
                object_id = entry.object_id
                prefixes.add(object_id[:TASK_ID_BYTES])
                if object_id in tokens:
                    listed.add(object_id)
                    if entry.local_ref_count or entry.submitted_task_ref_count or entry.contained_in_owned:
                        counted.setdefault(object_id, set()).add(worker)
        seen |= tasks & prefixes
        return None

    def done(self) -> Scan:
        return Scan(
            {token: frozenset(workers) for token, workers in self.counted.items()},
            frozenset(self.listed),
            frozenset(self.seen_tasks),
            self.entries,
            self.reply_bytes,
        )


def build(replies: Iterable[Any], tokens: Set[bytes], tasks: Set[bytes]) -> Scan | Incomplete:
    """A scan from the answers of all nodes. Pure."""
    builder = _Builder(tokens, tasks)
    for reply in replies:
        missing = builder.add(reply)
        if missing is not None:
            return Incomplete(missing)
        builder.reply_bytes += reply.ByteSize()
    return builder.done()


class Scanner:
    """Asks the raylets of one cluster; keeps its connections."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._stubs: dict[str, tuple[Any, Any]] = {}

    def scan(self, tokens: Set[bytes], tasks: Set[bytes]) -> Scan | Incomplete:
        """One scan of all nodes that GCS calls alive."""
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
        replies = []
        for address, call in calls.items():
            try:
                replies.append(call.result(timeout=max(0.1, end - time.monotonic())))
            except Exception as error:  # noqa: BLE001 - grpc's errors have no common base worth naming
                for other in calls.values():
                    other.cancel()
                return Incomplete(f"the node at {address} does not answer: {_short(error)}")
        return build(replies, tokens, tasks)

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
