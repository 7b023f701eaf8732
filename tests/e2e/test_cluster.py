"""The cluster itself: what every other test on it takes for granted."""

from __future__ import annotations

import pytest

from e2e import cluster
from e2e.pods import Pods

pytestmark = pytest.mark.e2e


def test_nodes_are_ready(workers: list[cluster.Node]) -> None:
    ready = {
        node["metadata"]["name"]: {one["type"]: one["status"] for one in node["status"]["conditions"]}["Ready"]
        for node in cluster.items("nodes")
    }
    assert len(ready) == 3
    assert set(ready.values()) == {"True"}
    assert len(workers) == 2


def test_a_pod_runs_on_each_worker(pods: Pods, workers: list[cluster.Node]) -> None:
    for node in workers:
        assert pods.logs(pods.run(node.name, "echo here")) == "here\n"


def test_pods_of_both_workers_share_one_memory(pods: Pods, workers: list[cluster.Node]) -> None:
    one, other = workers
    pods.run(one.name, f"stat -f -c %T /shared >/shared/{pods.namespace}")
    assert pods.logs(pods.run(other.name, f"cat /shared/{pods.namespace}; rm /shared/{pods.namespace}")) == "tmpfs\n"


def test_pods_reach_one_another_and_the_api_server_by_name(pods: Pods, workers: list[cluster.Node]) -> None:
    one, other = workers
    server = pods.run(one.name, "exec python3 -m http.server --directory /shared 8000", wait_for="Running")
    get = f"wget -q -O- --tries=20 --retry-connrefused --waitretry=1 http://{pods.address(server)}:8000/ | head -c 9"
    assert pods.logs(pods.run(other.name, get)) == "<!DOCTYPE"
    asked = "wget -q -O- --no-check-certificate https://kubernetes.default.svc.cluster.local/livez"
    assert pods.logs(pods.run(other.name, asked)) == "ok"
