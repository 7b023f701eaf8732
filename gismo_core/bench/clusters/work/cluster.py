"""A cluster on this machine from its driver's point of view."""

from __future__ import annotations

import gc
import logging
import mmap
import os
import time
from dataclasses import dataclass, field
from typing import Any

import ray

_SETTLE_S = 60.0
_RPC_S = 10.0
_SLACK_BYTES = 2 << 20  # Ray's own small objects; the pool's tables of names


@dataclass(frozen=True, slots=True)
class StoreUse:
    """Bytes in use now: of the pool (0 without Gismo), of all plasma stores; and spilled so far."""

    pool_bytes: int
    plasma_bytes: int
    spilled_bytes: int


@dataclass(slots=True)
class Here:
    """The cluster. ``kept``: what one piece of work leaves for the next."""

    cluster: Any
    nodes: list[str]
    """IDs; the driver is on the first."""
    kept: dict[str, Any] = field(default_factory=dict)
    _stubs: dict[str, Any] = field(default_factory=dict)
    _base: StoreUse | None = None

    def on(self, number: int) -> Any:
        """Scheduling strategy: on that node and no other."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(self.nodes[number], soft=False)

    def actor(self, kind: Any, number: int, *arguments: Any) -> Any:
        """A new actor on a node, ready to be called; takes none of its CPUs."""
        made = ray.remote(kind).options(num_cpus=0, scheduling_strategy=self.on(number)).remote(*arguments)
        ray.get(made.__ray_ready__.remote())
        return made

    def session(self) -> Any:
        """Gismo's session of this driver; None in the stock cluster."""
        if "GISMO_STORE" not in os.environ:
            return None
        from gismo_core.ray import session

        found = session.current()
        if found is None:
            raise RuntimeError(f"Gismo is not on in this cluster: {session.failure() or 'see the log'}")
        return found

    def use(self) -> StoreUse:
        """Asks every raylet, and the pool. A node that has just died is asked until GCS knows of it."""
        import grpc

        end = time.monotonic() + _SETTLE_S
        while True:
            try:
                stores = self._ask_raylets()
                break
            except grpc.RpcError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
        return StoreUse(
            pool_bytes=self.pool_bytes(),
            plasma_bytes=sum(store.object_store_bytes_used for store in stores),
            spilled_bytes=sum(store.spilled_bytes_total for store in stores),
        )

    def _ask_raylets(self) -> list[Any]:
        from ray._private.grpc_utils import init_grpc_channel
        from ray.core.generated import node_manager_pb2, node_manager_pb2_grpc

        request = node_manager_pb2.GetNodeStatsRequest(include_memory_info=False)
        calls = []
        for node in ray.nodes():
            if node["Alive"]:
                address = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
                if address not in self._stubs:
                    channel = init_grpc_channel(address)
                    self._stubs[address] = node_manager_pb2_grpc.NodeManagerServiceStub(channel)
                calls.append(self._stubs[address].GetNodeStats.future(request, timeout=_RPC_S))
        return [call.result().store_stats for call in calls]

    def pool_bytes(self) -> int:
        """In use in the pool; 0 in the stock cluster."""
        session = self.session()
        return 0 if session is None else int(session.store.stats().used_bytes)

    def base(self) -> StoreUse:
        """What was in use before any work."""
        if self._base is None:
            self._base = self.use()
        return self._base

    def settle(self, held_bytes: int = 0) -> float:
        """Wait until nothing but held_bytes is in use; seconds. TimeoutError after a minute."""
        gc.collect()
        base = self.base()
        limit = base.pool_bytes + base.plasma_bytes + held_bytes + _SLACK_BYTES
        begin = time.monotonic()
        while True:
            use = self.use()
            if use.pool_bytes + use.plasma_bytes <= limit:
                return time.monotonic() - begin
            if time.monotonic() - begin > _SETTLE_S:
                raise TimeoutError(f"not freed after {_SETTLE_S:.0f} s: {use}, and {base} before")
            time.sleep(0.02)

    def end(self) -> None:
        """Shut down."""
        self.kept.clear()
        gc.collect()
        ray.shutdown()
        self.cluster.shutdown()


def start(shape: dict[str, Any], directory: str) -> Here:
    """Start the nodes and connect."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for number in range(shape["nodes"]):
        # One head, with what all of them need.
        head = {"include_dashboard": False, "temp_dir": directory} if number == 0 else {}
        if os.environ.get("RAY_preallocate_plasma_memory") == "1":  # noqa: SIM112 - spelled as Ray does
            _touch(shape["plasma_bytes"])
        cluster.add_node(num_cpus=shape["cpus"], object_store_memory=shape["plasma_bytes"], **head)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.WARNING)
    first = ray.get_runtime_context().get_node_id()
    others = [node["NodeID"] for node in ray.nodes() if node["NodeID"] != first]
    here = Here(cluster, [first, *others])
    if here.session() is not None:
        _wait_for_keeper(here)
    here.base()
    return here


def _touch(nbytes: int) -> None:
    """Have the machine find so much memory: the raylet that allocates it next has it at once.

    A virtual machine whose free memory its host takes back needs up to ten seconds per GiB, and Ray's start of a node does not
    come to an end (2.60: its question to GCS hangs for two minutes) when the raylet takes longer than about ten.
    """
    mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def _wait_for_keeper(here: Here) -> None:
    """As a cluster that has been up for some seconds has one."""
    end = time.monotonic() + _SETTLE_S
    while here.session().keeper is None:
        if time.monotonic() > end:
            raise TimeoutError("no keeper of Gismo after a minute")
        time.sleep(0.05)
    ray.get(here.session().keeper.status.remote(), timeout=_SETTLE_S)


def settle(here: Here) -> float:
    """See Here.settle()."""
    return here.settle()


def use(here: Here) -> dict[str, int]:
    """See Here.use()."""
    found = here.use()
    return {
        "pool_bytes": found.pool_bytes,
        "plasma_bytes": found.plasma_bytes,
        "spilled_bytes": found.spilled_bytes,
    }
