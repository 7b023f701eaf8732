"""A node dies while a job runs."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import ray

from gismo_core.bench.clusters.work.cluster import Here

_WORK_S = 0.2


def source(nbytes: int, number: int) -> Any:
    """An array that says who made it."""
    array = np.full(nbytes // 8, number, dtype=np.int64)
    array[0] = os.getpid()
    return array


def piece(array: Any, factor: int) -> Any:
    """Some work over it; another array of its size."""
    time.sleep(_WORK_S)
    return array[1:] * factor


def kill_a_node(here: Here, objects: int, nbytes: int, tasks: int) -> dict[str, Any]:
    """Tasks on the last node make objects; then a job works on them on all nodes, and that node is killed.

    right: results of the job that were as they had to be; still_there: objects that were read unchanged afterwards,
    made by the process that made them first.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    last = here.nodes[-1]
    there = NodeAffinitySchedulingStrategy(last, soft=True)
    making, working = ray.remote(source), ray.remote(piece)
    refs = [making.options(scheduling_strategy=there).remote(nbytes, number) for number in range(objects)]
    makers = [int(ray.get(ref)[0]) for ref in refs]

    begin = time.perf_counter()
    job = [
        working.options(scheduling_strategy="SPREAD", max_retries=5).remote(refs[number % objects], number + 1)
        for number in range(tasks)
    ]
    done, _ = ray.wait(job, num_returns=tasks // 3)
    socket = next(node["ObjectStoreSocketName"] for node in ray.nodes() if node["NodeID"] == last)
    victim = next(node for node in here.cluster.worker_nodes if node.plasma_store_socket_name == socket)
    here.cluster.remove_node(victim, allow_graceful=False)
    right = 0
    for number, ref in enumerate(job):
        right += bool(np.all(ray.get(ref) == (number % objects) * (number + 1)))
    seconds = time.perf_counter() - begin
    still = 0
    for number, (ref, maker) in enumerate(zip(refs, makers, strict=True)):
        array = ray.get(ref)
        still += bool(array[0] == maker and np.all(array[1:] == number))
    here.nodes.pop()
    return {
        "tasks": tasks,
        "done_before": len(done),
        "right": right,
        "objects": objects,
        "still_there": still,
        "seconds": seconds,
    }
