"""Metrics, events and probes of operator and agents as real processes: what they say, and when a probe fails."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from apiserver import ControlPlane
from two_nodes import NODES, POOL, Cluster, played

from gismo_operator.api import quantity

pytestmark = pytest.mark.integration

TEAM_A = {"name": "team-a", "size": "64Mi", "access": {"kubernetesNamespaces": ["team-a"]}}
RESOURCE_A = f"gismo.io/{POOL}.team-a"
OF_A = f"gismo_namespace=team-a,pool={POOL}"


async def well(world: Cluster, name: str, path: str = "/readyz") -> None:
    await world.eventually(lambda: world.ask(name, path)[0] == 200)


def of_this_pool(world: Cluster) -> list[tuple[str, str, str, str, int]]:
    """Events; those of another test, which ended before, may come late."""
    return [one for one in world.told() if one[0].split()[1].partition(".")[0] == POOL]


def test_events_are_told_once_and_metrics_show_what_statuses_show(world: Cluster) -> None:
    async def story() -> None:
        for name in ("operator", *NODES):
            await well(world, name)  # ready without any pool too
        world.apply(TEAM_A)
        await world.ready()
        for node in NODES:
            await world.offered(node, RESOURCE_A)
        await world.kubelets["node-b"].run_pod("team-a", "ray-head", RESOURCE_A)
        await world.eventually(lambda: world.metrics("node-b").get(f"gismo_node_shares_held{{{OF_A}}}") == 1)
        in_use = f"gismo_namespace_status_condition{{condition=InUse,{OF_A},status=true}}"
        await world.eventually(lambda: world.metrics("operator").get(in_use) == 1)
        operator_shows_the_statuses(world)
        agents_show_theirs(world)
        await world.eventually(lambda: len(of_this_pool(world)) >= 4)
        await asyncio.sleep(4.5)  # two rounds of each agent: nothing is told again
        of_node = "1 Gismo namespaces of the pool are ready on this node"
        told = sorted(of_this_pool(world))
        assert [one for one in told if one[0].startswith("GismoNode")] == [
            (f"GismoNode {POOL}.{node}", "Normal", "Ready", of_node, 1) for node in NODES
        ]
        use = f"on all of its 2 nodes; pods of the Kubernetes namespaces team-a get a share with `{RESOURCE_A}: 1` in their limits"
        assert (f"GismoNamespace {POOL}.team-a", "Normal", "Ready", use, 1) in told
        assert (f"GismoPool {POOL}", "Normal", "Ready", "every Gismo namespace is ready on 2 nodes", 1) in told
        # An operator may hear of the pool before it hears of the agents.
        assert {one[2] for one in told if one[1] == "Warning"} <= {"NoNodes"}, told
        # Another operator, and an agent that starts anew, know that it was told.
        process = world.processes["operator"]
        process.terminate()
        assert process.wait(30) == 0
        world.kill("node-a")
        world.start("operator")
        world.start("node-a")
        for name in ("operator", "node-a"):
            await well(world, name)
        await world.eventually(lambda: world.metrics("operator").get("gismo_operator_leader{}") == 1)
        await world.ready()
        await asyncio.sleep(2.5)
        assert sorted(of_this_pool(world)) == told

    played(world, story)


def operator_shows_the_statuses(world: Cluster) -> None:
    said, shown = world.pools.get(name=POOL).to_dict()["status"], world.metrics("operator")
    of_pool = f"pool={POOL}"
    for one in said["conditions"]:
        for status in ("True", "False", "Unknown"):
            name = f"gismo_pool_status_condition{{condition={one['type']},{of_pool},status={status.lower()}}}"
            assert shown[name] == (one["status"] == status), name
    for field, name in (
        ("capacity", "capacity"),
        ("allocated", "allocated"),
        ("free", "free"),
        ("largestFree", "largest_free"),
    ):
        assert shown[f"gismo_pool_{name}_bytes{{{of_pool}}}"] == quantity.to_bytes(said[field])
    for field, name in (("namespacesReady", "namespaces"), ("nodesReady", "nodes")):
        ready, total = f"gismo_pool_{name}_ready{{{of_pool}}}", f"gismo_pool_{name}{{{of_pool}}}"
        assert f"{shown[ready]:.0f}/{shown[total]:.0f}" == said[field]
    assert shown[f"gismo_pool_layout_version{{{of_pool}}}"] == said["layoutVersion"]
    assert shown[f"gismo_pool_hosts{{{of_pool},standing=Active}}"] == 2
    of_range: dict[str, Any] = world.ranges.get(name=f"{POOL}.team-a").to_dict()
    assert shown[f"gismo_namespace_size_bytes{{{OF_A}}}"] == of_range["spec"]["sizeBytes"]
    assert shown[f"gismo_namespace_nodes_ready{{{OF_A}}}"] == 2
    for one in of_range["status"]["conditions"]:
        name = f"gismo_namespace_status_condition{{condition={one['type']},{OF_A},status={one['status'].lower()}}}"
        assert shown[name] == 1
    assert shown["gismo_operator_leader{}"] == 1
    assert shown["gismo_operator_reconcile_total{result=written}"] > 0
    assert shown["gismo_operator_reconcile_total{result=error}"] == 0


def agents_show_theirs(world: Cluster) -> None:
    for node in NODES:
        said, shown = world.nodes.get(name=f"{POOL}.{node}").to_dict()["status"], world.metrics(node)
        for one in said["conditions"]:
            name = f"gismo_node_status_condition{{condition={one['type']},pool={POOL},status={one['status'].lower()}}}"
            assert shown[name] == 1
        assert shown[f"gismo_node_namespaces{{pool={POOL},state=ready}}"] == said["ready"] == 1
        assert shown[f"gismo_node_namespaces{{pool={POOL},state=failing}}"] == said["failing"] == 0
        assert shown[f"gismo_node_layout_version{{pool={POOL}}}"] == said["layoutVersion"]
        assert shown[f"gismo_node_capacity_bytes{{pool={POOL}}}"] == said["capacityBytes"]
        assert shown[f"gismo_node_shares{{{OF_A}}}"] == 64
        assert shown[f"gismo_deviceplugin_registered{{{OF_A}}}"] == 1
        assert shown["gismo_deviceplugin_registrations_total{result=done}"] >= 1
    assert shown["gismo_deviceplugin_requests_total{code=OK,method=PreStartContainer}"] == 1


def test_probes_hold_while_the_api_server_is_silent(world: Cluster, control_plane: ControlPlane) -> None:
    """A leader would end by its Lease; who waits, and agents, stay what they are."""

    async def story() -> None:
        world.apply(TEAM_A)
        await world.ready()
        await world.offered("node-a", RESOURCE_A)
        world.start("operator-again")
        await well(world, "operator-again")
        shown = world.metrics("operator-again")
        assert shown["gismo_operator_leader{}"] == 0
        assert not [name for name in shown if name.startswith(("gismo_pool_", "gismo_namespace_"))], (
            "the leader's alone"
        )
        world.kill("operator")
        others = ("operator-again", *NODES)
        with control_plane.silent():
            for _ in range(3):
                await asyncio.sleep(2.5)  # longer than a request may take, in all
                for name in others:
                    for path in ("/livez", "/readyz"):
                        assert world.ask(name, path) == (200, "ok\n"), (name, path)
            await world.kubelets["node-a"].run_pod("team-a", "ray-head", RESOURCE_A)  # the kubelet is served meanwhile
        assert [world.processes[name].poll() for name in others] == [None] * 3
        held = f"gismo_node_shares_held{{{OF_A}}}"
        await world.eventually(lambda: world.metrics("node-a").get(held) == 1)

    played(world, story)


# A process that can be made ill from outside, by files: watches of a kind that hang for good, calls of the kubelet that are
# not answered. Its clocks run faster.
_ILL = """
import asyncio, pathlib, sys
from kopf._cogs.clients import watching
from gismo_kube import following, informer
following._BETWEEN_S, informer.WATCH_S = 5, 1
following.Following.__init__.__kwdefaults__["watch_s"] = 1
def ill(what):
    return pathlib.Path({folder!r}, "{module}-" + what).exists()
real_watch = watching.watch_objs
async def watch_objs(*, resource, **named):
    while ill("deaf-to-" + resource.plural):
        await asyncio.sleep(0.1)
    async for one in real_watch(resource=resource, **named):
        yield one
watching.watch_objs = watch_objs
if "{module}" == "gismo_deviceplugin":
    from gismo_deviceplugin.kubelet import plugin
    real_options = plugin.Plugin._options
    async def _options(self, request, context):
        while ill("mute"):
            await asyncio.sleep(0.1)
        return await real_options(self, request, context)
    plugin.Plugin._options = _options
from {module}.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_probes_fail_where_a_new_start_would_mend_it_and_only_there(world: Cluster) -> None:
    def ill(what: str) -> Path:
        return world.folder / what

    async def live(name: str) -> tuple[int, str]:
        return await asyncio.to_thread(world.ask, name, "/livez")

    async def story() -> None:
        world.apply(TEAM_A)
        await world.ready()
        await world.offered("node-a", RESOURCE_A)
        await asyncio.sleep(5)  # watches come and go, and are made anew
        for name in ("operator", "node-a"):
            assert await live(name) == (200, "ok\n")
        # A plugin that does not answer the kubelet.
        ill("gismo_deviceplugin-mute").touch()
        assert await live("node-a") == (503, f"the socket of {RESOURCE_A} does not answer\n")
        ill("gismo_deviceplugin-mute").unlink()
        assert await live("node-a") == (200, "ok\n")
        # Watches that are dead: nobody hears any more what changes.
        ill("gismo_operator-deaf-to-gismopools").touch()
        ill("gismo_deviceplugin-deaf-to-gismonamespaces").touch()
        for name, plural in (("operator", "gismopools"), ("node-a", "gismonamespaces")):
            await world.eventually(lambda name=name: world.ask(name, "/livez")[0] == 503)  # type: ignore[misc]
            assert f"the watch of {plural} is dead: no request for " in world.ask(name, "/livez")[1]
        ill("gismo_deviceplugin-deaf-to-gismonamespaces").unlink()
        await well(world, "node-a", "/livez")
        # A kubelet that is down is no reason to start the agent anew. What it has to learn makes the agent unready.
        kubelet = world.kubelets["node-a"]
        await kubelet.stop()
        for path in kubelet.folder.iterdir():
            path.unlink()
        await world.eventually(lambda: world.ask("node-a", "/readyz")[0] == 503)
        assert world.ask("node-a", "/readyz")[1] == f"not registered with the kubelet: {RESOURCE_A}\n"
        assert await live("node-a") == (200, "ok\n")
        await kubelet.start()
        await well(world, "node-a")
        # A process that hangs does not answer at all.
        os.kill(world.processes["node-a"].pid, signal.SIGSTOP)
        try:
            assert world.ask("node-a", "/livez")[0] == 0
        finally:
            os.kill(world.processes["node-a"].pid, signal.SIGCONT)

    programs = {
        name: _ILL.format(folder=str(world.folder), module=module)
        for name, module in (("operator", "gismo_operator"), ("node_a", "gismo_deviceplugin"))
    }
    played(world, story, **programs)
