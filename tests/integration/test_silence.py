"""Nodes that fall silent, and come back: what the operator decides of them, done by the agents in the stores (P10 of FORMAT.md)."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from fake_kubelet import Pod
from two_nodes import NODES, POOL, PYTHON, Cluster, environment, played

from store_user import KEPT, StoreUser

pytestmark = pytest.mark.integration

TEAM_A = {"name": "team-a", "size": "64Mi", "access": {"kubernetesNamespaces": ["team-a"]}}
RESOURCE = f"gismo.io/{POOL}.team-a"


def is_ready(world: Cluster, node: str, *, ready: bool) -> None:
    status = {"conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}]}
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "status": status}
    world.cluster.status.patch(name=node, body=body, content_type="application/merge-patch+json")


def taint(world: Cluster, node: str) -> None:
    taints = [{"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}]
    world.cluster.patch(name=node, body={"spec": {"taints": taints}}, content_type="application/merge-patch+json")


def gnode(world: Cluster, node: str) -> dict[str, Any]:
    return dict(world.nodes.get(name=f"{POOL}.{node}").to_dict())


def standing(world: Cluster, node: str) -> str:
    return str(gnode(world, node)["spec"]["standing"])


async def begin(world: Cluster) -> tuple[dict[str, Pod], StoreUser]:
    """A container on each node, the second one at work."""
    world.apply(TEAM_A)
    await world.ready()
    pods = {}
    for node in NODES:
        await world.offered(node, RESOURCE)
        pods[node] = await world.kubelets[node].run_pod("team-a", f"ray-on-{node}", RESOURCE)
    return pods, StoreUser(PYTHON, "gismo_core.open()", env=environment(pods["node-b"]))


def test_a_node_that_was_frozen_is_fenced_and_comes_back(world: Cluster) -> None:
    async def story() -> None:
        pods, work = await begin(world)
        try:
            work.process.send_signal(signal.SIGSTOP)
            world.processes["node-b"].send_signal(signal.SIGSTOP)
            is_ready(world, "node-b", ready=False)
            await world.eventually(lambda: standing(world, "node-b") == "Fenced")
            (said,) = gnode(world, "node-a")["status"]["silent"]
            assert (said["node"], said["active"], said["fenced"], said["released"]) == ("node-b", 0, 1, 0)
            with world.open("node-a", pods["node-a"]) as store:
                assert bytes(store.get(work.kept).data) == KEPT, "what it had made is there"
                assert store.stats().writing_objects == 1, "what it was making is not used again"
            world.processes["node-b"].send_signal(signal.SIGCONT)
            work.process.send_signal(signal.SIGCONT)
            is_ready(world, "node-b", ready=True)
            await world.eventually(lambda: standing(world, "node-b") == "Active")
            assert work.put() == "Fenced"

            def told() -> bool:
                failures = gnode(world, "node-b")["status"]["failures"]
                return any(one["reason"] == "Fenced" and "delete their pods" in one["message"] for one in failures)

            await world.eventually(told)
            work.kill()
            await world.ready()
            await world.offered("node-b", RESOURCE)
            with world.open("node-b", pods["node-b"]) as store:
                assert bytes(store.get(work.kept).data) == KEPT
                assert store.stats().writing_objects == 0
            assert not gnode(world, "node-a")["status"].get("silent")
        finally:
            world.processes["node-b"].send_signal(signal.SIGCONT)
            work.process.send_signal(signal.SIGCONT)
            work.kill()
        reasons = [reason for about, _, reason, *_ in world.told("GismoNode") if about.endswith("node-b")]
        for one in ("Suspect", "Fenced", "Active"):
            assert one in reasons

    played(world, story)


def test_what_a_dead_node_held_is_used_again_unless_it_is_not_dead(world: Cluster) -> None:
    async def story() -> None:
        pods, work = await begin(world)
        try:
            taint(world, "node-b")  # a wrong word

            def is_doubted() -> bool:
                said = gnode(world, "node-a")["status"].get("silent", [])
                return any("not off" in one["message"] and one["active"] == 1 for one in said)

            await world.eventually(is_doubted)
            assert standing(world, "node-b") == "Dead"
            assert work.put() == "done"
            work.kill()
            world.kill("node-b")
            await world.eventually(lambda: standing(world, "node-b") == "Released")
            with world.open("node-a", pods["node-a"]) as store:
                assert bytes(store.get(work.kept).data) == KEPT
                assert store.stats().writing_objects == 0
                store.delete(work.kept)
        finally:
            work.kill()
        reasons = [reason for about, _, reason, *_ in world.told("GismoNode") if about.endswith("node-b")]
        for one in ("Dead", "Released"):
            assert one in reasons

    played(world, story)
