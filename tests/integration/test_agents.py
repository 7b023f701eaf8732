"""From `kubectl apply` to a share in a container: the operator and the agents of two nodes (two_nodes.py)."""

from __future__ import annotations

import asyncio
import os

import grpc
import pytest
from two_nodes import NODES, POOL, Cluster, played

pytestmark = pytest.mark.integration

TEAM_A = {"name": "team-a", "size": "64Mi", "access": {"kubernetesNamespaces": ["team-a"]}}
TEAM_B = {"name": "team-b", "size": "32Mi", "access": {"kubernetesNamespaces": ["team-b"]}}
RESOURCE_A, RESOURCE_B = f"gismo.io/{POOL}.team-a", f"gismo.io/{POOL}.team-b"


def test_what_is_made_on_one_node_is_read_on_the_other_where_it_lies(world: Cluster) -> None:
    async def story() -> None:
        world.apply(TEAM_A, TEAM_B)
        await world.ready()
        assert world.condition("Degraded") is not None
        assert (world.condition("Degraded") or ("",))[0] == "False"
        pods = {}
        for node in NODES:
            await world.offered(node, RESOURCE_A)
            pods[node] = await world.kubelets[node].run_pod("team-a", f"ray-on-{node}", RESOURCE_A)
        with world.open("node-a", pods["node-a"]) as here, world.open("node-b", pods["node-b"]) as there:
            assert {here.host_id, there.host_id} == {0, 1}
            handle = here.put(b"x" * 100_000)
            assert bytes(there.get(handle).data[:3]) == b"xxx"
        made = world.run(pods["node-a"], "import gismo_core as g; s = g.open(); print(s.put(b'from a'))")
        read = f"import gismo_core as g; s = g.open(); print(bytes(s.get(g.Handle.parse({made!r})).data))"
        assert world.run(pods["node-b"], read) == "b'from a'"
        with pytest.raises(grpc.aio.AioRpcError, match="add team-b to access"):
            await world.kubelets["node-a"].run_pod("team-b", "stranger", RESOURCE_A)

    played(world, story)


def test_a_namespace_in_use_waits_and_says_for_whom(world: Cluster) -> None:
    async def story() -> None:
        world.apply(TEAM_A, TEAM_B)
        await world.ready()
        await world.offered("node-b", RESOURCE_A)
        pod = await world.kubelets["node-b"].run_pod("team-a", "ray-head", RESOURCE_A)
        store = pod.answer.envs["GISMO_STORE"].rpartition("/")[2]
        world.apply(TEAM_B)
        await world.eventually(lambda: "team-a/ray-head on node-b" in (world.condition("Progressing") or ("",) * 3)[2])
        await world.eventually(lambda: world.kubelets["node-b"].endpoints[RESOURCE_A].ended)
        await asyncio.sleep(12)  # longer than a share may be hidden
        assert (world.memory / store).exists()
        world.kubelets["node-b"].pods.clear()
        await world.eventually(lambda: not (world.memory / store).exists())
        await world.eventually(lambda: [one.spec.namespace for one in world.ranges.get().items] == ["team-b"])
        await world.eventually(lambda: (world.condition("Progressing") or ("",))[0] == "False")
        await world.ready()

    played(world, story)


def test_by_force_the_name_is_free_and_who_uses_the_old_bytes_keeps_them(world: Cluster) -> None:
    async def story() -> None:
        world.apply(TEAM_A, TEAM_B)
        await world.ready()
        await world.offered("node-b", RESOURCE_A)
        kubelet = world.kubelets["node-b"]
        pod = await kubelet.run_pod("team-a", "ray-head", RESOURCE_A)
        old = pod.answer.envs["GISMO_STORE"].rpartition("/")[2]
        with world.open("node-b", pod) as store:
            handle = store.put(b"kept" * 1000)
            forced = {"metadata": {"annotations": {"gismo.io/force-delete": "team-a"}}}
            world.pools.patch(name=POOL, body=forced, content_type="application/merge-patch+json")
            world.apply(TEAM_B)
            await world.eventually(lambda: [one.spec.namespace for one in world.ranges.get().items] == ["team-b"])
            await world.eventually(lambda: (world.condition("Progressing") or ("",) * 3)[1] == "Quarantined")
            said = (world.condition("Progressing") or ("",) * 3)[2]
            assert "64Mi that were team-a's are nobody else's as long as they are used by" in said
            # The other node's agent may have seen the process before this one's saw the pod.
            await world.eventually(
                lambda: "team-a/ray-head on node-b" in (world.condition("Progressing") or ("",) * 3)[2]
            )
            world.apply(TEAM_A, TEAM_B)
            await world.ready()
            ranges = {one.spec.namespace: one.spec for one in world.ranges.get().items}
            assert ranges["team-a"].offsetBytes >> 20 == 98, "behind the old one and team-b"
            await world.offered("node-b", RESOURCE_A)
            new = await kubelet.run_pod("team-a", "ray-head-2", RESOURCE_A)
            with world.open("node-b", new) as other:
                assert other.store_uuid != store.store_uuid
                for _ in range(8):
                    other.put(os.urandom(1 << 20))
            assert bytes(store.get(handle).data) == b"kept" * 1000
            with pytest.raises(grpc.aio.AioRpcError, match="is of a store that is gone"):
                await kubelet.endpoints[RESOURCE_A].pre_start(pod.share)  # its container starts again
            kubelet.pods.remove(pod)
            await asyncio.sleep(3)
            assert (world.memory / old).exists(), "the process that has it open is a user too"
            assert bytes(store.get(handle).data) == b"kept" * 1000
        await world.eventually(lambda: not (world.memory / old).exists())
        await world.eventually(lambda: (world.condition("Progressing") or ("",))[0] == "False")
        assert world.pools.get(name=POOL).status.free == "160Mi"

    played(world, story)


def test_a_pool_that_is_deleted_by_force_ends_and_its_user_does_not(world: Cluster) -> None:
    async def story() -> None:
        world.apply(TEAM_A)
        await world.ready()
        await world.offered("node-b", RESOURCE_A)
        kubelet = world.kubelets["node-b"]
        pod = await kubelet.run_pod("team-a", "ray-head", RESOURCE_A)
        file = world.memory / pod.answer.envs["GISMO_STORE"].rpartition("/")[2]
        with world.open("node-b", pod) as store:
            handle = store.put(b"kept")
            forced = {"metadata": {"annotations": {"gismo.io/force-delete": "team-a"}}}
            world.pools.patch(name=POOL, body=forced, content_type="application/merge-patch+json")
            await world.eventually(lambda: world.ranges.get(name=f"{POOL}.team-a").spec.force)
            world.pools.delete(name=POOL)
            await world.eventually(lambda: not world.ranges.get().items)
            assert bytes(store.get(handle).data) == b"kept"
            await world.eventually(lambda: any("team-a/ray-head" in one["holders"] for one in world.quarantined()))
        kubelet.pods.clear()
        await world.eventually(lambda: not file.exists())
        await world.eventually(lambda: not world.quarantined())

    played(world, story)


def test_a_range_that_comes_late_over_anothers_bytes_goes_again(world: Cluster) -> None:
    async def story() -> None:
        world.apply(TEAM_A)
        await world.ready()
        there = world.ranges.get(name=f"{POOL}.team-a").to_dict()
        late = {
            "apiVersion": there["apiVersion"],
            "kind": there["kind"],
            "metadata": {"name": f"{POOL}.late", "finalizers": ["gismo.io/range"]},
            "spec": {**there["spec"], "namespace": "late", "storeUUID": "0a1b2c3d-0000-4000-8000-000000000001"},
        }
        world.ranges.create(body=late)
        await world.eventually(lambda: [one.spec.namespace for one in world.ranges.get().items] == ["team-a"])
        assert not (world.memory / late["spec"]["storeUUID"]).exists()
        await world.ready()
        assert world.ranges.get(name=f"{POOL}.team-a").spec.storeUUID == there["spec"]["storeUUID"]

    played(world, story)


def test_agents_that_are_killed_and_a_kubelet_that_starts_anew(world: Cluster) -> None:
    async def story() -> None:
        world.apply(TEAM_A)
        await world.ready()
        await world.offered("node-a", RESOURCE_A)
        kubelet = world.kubelets["node-a"]
        pod = await kubelet.run_pod("team-a", "ray-head", RESOURCE_A)
        with world.open("node-a", pod) as store:
            handle = store.put(b"kept")
            for round_ in range(3):
                world.kill("node-a")
                await world.eventually(lambda: kubelet.endpoints[RESOURCE_A].ended)
                if round_ == 1:
                    await kubelet.stop()
                    await kubelet.start()
                world.start("node-a")
                await world.eventually(
                    lambda: not kubelet.endpoints.get(RESOURCE_A) or not kubelet.endpoints[RESOURCE_A].ended
                )
                await world.offered("node-a", RESOURCE_A)
                other = await kubelet.run_pod("team-a", f"ray-{round_}", RESOURCE_A)
                assert other.answer.mounts == pod.answer.mounts, "an answer that is replayed stays true"
                assert {**other.answer.envs, "GISMO_SHARE": pod.share} == dict(pod.answer.envs)
                await kubelet.endpoints[RESOURCE_A].pre_start(pod.share)  # its container starts again
            assert bytes(store.get(handle).data) == b"kept"
        await world.ready()
        assert len({one.share for one in kubelet.pods}) == len(kubelet.pods) == 4

    played(world, story)


def test_memory_that_is_not_the_same_is_not_offered(world: Cluster) -> None:
    async def story() -> None:
        os.rename(world.memory, world.folder / "elsewhere")
        world.apply(TEAM_A)
        await world.eventually(
            lambda: (world.condition("Degraded") or ("",))[0] == "True" or bool(world.nodes.get().items)
        )
        await world.eventually(
            lambda: any(
                "mount one tmpfs there" in str(one.to_dict().get("status", {}).get("failures"))
                for one in world.nodes.get().items
            )
        )
        assert (world.condition("Ready") or ("",))[0] != "True"
        assert not any(kubelet.endpoints for kubelet in world.kubelets.values())
        os.rename(world.folder / "elsewhere", world.memory)
        await world.ready()

    played(world, story)
