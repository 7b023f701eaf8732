"""Programs for tests/ray/test_bridge.py: a cluster of which one node has a pool, and drivers that have none.

`cluster` starts the nodes and prints the address; `driver ADDRESS` runs the scenarios whose names it reads, one a line,
and answers each with one line of JSON. Both end when their standard input does.
"""

from __future__ import annotations

import json
import os
import sys
import traceback

import bridge_cluster
import bridge_scenarios


def cluster() -> None:
    """A node with the pool, which is the head, and one without."""
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    try:
        # What else runs on this machine is no affair of these tests.
        os.environ.update(RAY_memory_monitor_refresh_ms="0", RAY_raylet_start_wait_time_s="120")
        pool = os.environ["GISMO_STORE"]
        common = {"object_store_memory": 250 << 20, "include_dashboard": False}
        nodes.add_node(num_cpus=2, resources={"pool": 100}, **common)
        os.environ["GISMO_STORE"] = pool + "-missing"
        nodes.add_node(num_cpus=3, resources={"bare": 100}, object_store_memory=250 << 20)
        nodes.wait_for_nodes()
        print(nodes.address, flush=True)
        sys.stdin.read()
    finally:
        nodes.shutdown()


def driver(address: str) -> None:
    import ray

    for module in (bridge_cluster, bridge_scenarios):
        ray.cloudpickle.register_pickle_by_value(module)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints what it likes
    ray.init(address, log_to_driver=False)
    nodes = bridge_cluster.Nodes(ray)
    for line in sys.stdin:
        problem = None
        try:
            getattr(bridge_scenarios, line.strip())(nodes)
        except BaseException:  # noqa: BLE001 - whatever it is, it is the answer
            problem = traceback.format_exc()
        print(json.dumps(problem), file=answers, flush=True)
    ray.shutdown()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
