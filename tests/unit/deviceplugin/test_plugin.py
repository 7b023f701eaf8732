"""The device plugin against the kubelet's end of its API, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_kubelet import Kubelet

from gismo_deviceplugin.kubelet import registrar, shares, wire
from gismo_deviceplugin.kubelet.plugin import Plugin
from gismo_deviceplugin.kubelet.pod_resources import PodResources
from gismo_deviceplugin.kubelet.registrar import Registrar
from gismo_deviceplugin.kubelet.shares import Refused, Tenant

_WAIT_S = 30.0


def tenant(name: str = "team-a", shares_: int = 2, store: int = 1) -> Tenant:
    uuid = f"0a1b2c3d-0000-4000-8000-{store:012d}"
    return Tenant("rack1", name, uuid, shares_, f"/memory/{name}", False, f"/state/{uuid}", "/runtime")


class Node:
    """A kubelet and the plugins on it."""

    def __init__(self, folder: Path) -> None:
        self.kubelet = Kubelet(folder)
        self.refused: str | None = None
        self.started: list[tuple[str, tuple[str, ...]]] = []
        self.answered: list[tuple[str, str]] = []  # method, code
        self.registrations: list[bool] = []
        self.registrar = Registrar(
            self._before_start,
            folder,
            answered=lambda method, code, seconds: self.answered.append((method, code)) if seconds >= 0 else None,
            done=self.registrations.append,
        )
        self.running: asyncio.Task[None] | None = None

    async def _before_start(self, one: Tenant, ids: Sequence[str]) -> None:
        self.started.append((one.resource, tuple(ids)))
        if self.refused:
            raise Refused(self.refused)

    async def offered(self, resource: str, health: str = wire.HEALTHY, count: int | None = None) -> Any:
        """Wait until the kubelet sees it so; its endpoint."""

        def seen() -> bool:
            one = self.kubelet.endpoints.get(resource)
            devices = list(one.devices.values()) if one is not None else []
            return bool(devices) and set(devices) == {health} and count in (None, len(devices))

        await eventually(seen)
        return self.kubelet.endpoints[resource]


async def eventually(what: Callable[[], bool]) -> None:
    end = time.monotonic() + _WAIT_S
    while not what():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def on_a_node() -> AsyncIterator[Node]:
    with tempfile.TemporaryDirectory(prefix="kubelet-") as folder:  # short: a socket's address ends at 107 bytes
        node = Node(Path(folder))
        await node.kubelet.start()
        node.running = asyncio.create_task(node.registrar.run())
        try:
            yield node
        finally:
            node.running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await node.running
            await node.kubelet.stop()
        assert not list(Path(folder).glob("gismo-*")), "a socket was left behind"


def played(story: Callable[[Node], Awaitable[None]]) -> None:
    async def play() -> None:
        async with on_a_node() as node:
            await story(node)

    coroutine: Coroutine[Any, Any, None] = play()
    asyncio.run(coroutine)


def test_a_share_from_registration_to_the_start_of_a_container() -> None:
    async def story(node: Node) -> None:
        one = tenant()
        await node.registrar.set_tenants({one: True})
        endpoint = await node.offered(one.resource, count=2)
        assert set(endpoint.devices) == set(shares.ids(one))
        share = shares.ids(one)[1]
        answer = await endpoint.allocate(share)
        assert dict(answer.envs) == dict(shares.answer(one, share).envs)
        assert {mount.container_path for mount in answer.mounts} == {
            f"/dev/gismo/{one.store_uuid}",
            f"/run/gismo/{one.store_uuid}",
            "/opt/gismo",
        }
        await endpoint.pre_start(share)
        assert node.started == [(one.resource, (share,))]
        assert node.registrar.registered() == {one.resource}

    played(story)


def test_a_share_of_a_device_is_the_device_and_no_mount_of_it() -> None:
    async def story(node: Node) -> None:
        one = replace(tenant(), is_device=True, memory=f"/dev/gismo/{tenant().store_uuid}")
        await node.registrar.set_tenants({one: True})
        endpoint = await node.offered(one.resource, count=2)
        answer = await endpoint.allocate(shares.ids(one)[0])
        (device,) = answer.devices
        assert (device.host_path, device.container_path, device.permissions) == (one.memory, one.memory, "rw")
        assert answer.envs["GISMO_STORE"] == f"dax:{one.memory}"
        assert {mount.container_path for mount in answer.mounts} == {f"/run/gismo/{one.store_uuid}", "/opt/gismo"}

    played(story)


def test_what_is_refused_says_what_to_do() -> None:
    async def story(node: Node) -> None:
        one = tenant()
        await node.registrar.set_tenants({one: True})
        endpoint = await node.offered(one.resource)
        with pytest.raises(grpc.aio.AioRpcError, match=r"write `gismo\.io/rack1\.team-a: 1`"):
            await endpoint.allocate(*shares.ids(one))
        node.refused = "the pods of namespace team-b may not use rack1.team-a: add it to access.kubernetesNamespaces"
        with pytest.raises(grpc.aio.AioRpcError, match=r"add it to access\.kubernetesNamespaces"):
            await endpoint.pre_start(shares.ids(one)[0])
        gone = tenant(store=7)
        with pytest.raises(grpc.aio.AioRpcError, match="is of a store that is gone"):
            await endpoint.pre_start(shares.ids(gone)[0])
        refused = "FAILED_PRECONDITION"
        assert node.answered == [("Allocate", refused), ("PreStartContainer", refused), ("PreStartContainer", refused)]
        await endpoint.allocate(shares.ids(one)[0])
        assert node.answered[3:] == [("Allocate", "OK")]
        assert node.registrations == [True]

    played(story)


def test_a_socket_that_does_not_answer_is_a_problem_and_one_that_is_gone_is_none() -> None:
    async def story(node: Node) -> None:
        tenants = [tenant(f"team-{number:02}", store=number + 1) for number in range(12)]
        await node.registrar.set_tenants(dict.fromkeys(tenants, True))
        for one in tenants:
            await node.offered(one.resource)
        assert node.registrar.offered() == node.registrar.registered() == {one.resource for one in tenants}
        assert await node.registrar.problems(5) == []
        # One that takes a connection and says nothing, as where the server's thread is dead.
        plugin = node.registrar._plugins[tenants[9].resource]
        own, plugin.socket = plugin.socket, node.kubelet.folder / "mute"
        with socket.socket(socket.AF_UNIX) as mute:
            mute.bind(str(plugin.socket))
            mute.listen()
            found = [await node.registrar.problems(0.5) for _ in range(3)]  # eight of them each time, by turns
            assert ["the socket of gismo.io/rack1.team-09 does not answer"] in found
            plugin.socket.unlink()
        assert [await node.registrar.problems(0.5) for _ in range(3)] == [[], [], []]
        plugin.socket = own

    played(story)


def test_health_and_number_of_shares_are_told_when_they_change_and_only_then() -> None:
    async def story(node: Node) -> None:
        one = tenant()
        await node.registrar.set_tenants({one: True})
        endpoint = await node.offered(one.resource, count=2)
        await node.registrar.set_tenants({one: False})
        await node.offered(one.resource, wire.UNHEALTHY)
        with pytest.raises(grpc.aio.AioRpcError, match="is not ready on this node"):
            await endpoint.allocate(shares.ids(one)[0])
        await node.registrar.set_tenants({one: True})
        await node.offered(one.resource)
        await node.registrar.set_tenants({replace(one, shares=5): True})
        await node.offered(one.resource, count=5)
        told = endpoint.lists
        await node.registrar.set_tenants({replace(one, shares=5, kubernetes_namespaces=frozenset({"x"})): True})
        await asyncio.sleep(0.3)
        assert endpoint.lists == told == 4
        assert node.kubelet.registrations == 1

    played(story)


def test_a_namespace_that_is_gone_is_not_offered_any_more() -> None:
    async def story(node: Node) -> None:
        one, other = tenant("team-a"), tenant("team-b", store=2)
        await node.registrar.set_tenants({one: True, other: True})
        endpoint = await node.offered(one.resource)
        await node.offered(other.resource)
        await node.registrar.set_tenants({other: True})
        await eventually(lambda: endpoint.ended)
        assert not endpoint.socket.exists()
        assert node.registrar.registered() == {other.resource}
        await node.registrar.set_tenants({one: True, other: True})
        await node.offered(one.resource)

    played(story)


def test_a_namespace_that_goes_while_it_is_registered_ends_nothing() -> None:
    async def story(node: Node) -> None:
        one, other = tenant("team-a"), tenant("team-b", store=2)
        node.kubelet.answers.clear()
        await node.registrar.set_tenants({one: True, other: True})
        await eventually(lambda: node.kubelet.registrations == 2)
        await node.registrar.set_tenants({other: True})
        node.kubelet.answers.set()
        await eventually(lambda: other.resource in node.registrar.registered())
        assert node.registrar.registered() == {other.resource}
        node.registrar.compare({})
        await node.offered(other.resource)
        await node.registrar.set_tenants({one: True, other: True})
        await node.offered(one.resource)

    played(story)


def test_a_namespace_that_is_going_is_not_compared() -> None:
    async def story(node: Node) -> None:
        one = tenant()
        await node.registrar.set_tenants({one: True})
        await node.offered(one.resource)
        await eventually(lambda: one.resource in node.registrar.registered())
        going = asyncio.create_task(node.registrar.set_tenants({}))
        while not going.done():
            node.registrar.compare({})
            await asyncio.sleep(0.01)
        await going
        assert node.registrar.registered() == frozenset()

    played(story)


def test_a_namespace_that_goes_while_it_begins_to_serve_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    may_start, begins = asyncio.Event(), Plugin.serve

    async def slowly(self: Plugin, folder: Path) -> None:
        await may_start.wait()
        await begins(self, folder)

    monkeypatch.setattr(Plugin, "serve", slowly)

    async def story(node: Node) -> None:
        one = tenant()
        await node.registrar.set_tenants({one: True})
        await asyncio.sleep(0.5)
        await node.registrar.set_tenants({})
        may_start.set()
        await asyncio.sleep(0.5)
        assert node.kubelet.registrations == 0
        assert not list(node.kubelet.folder.glob("gismo-*.sock"))

    played(story)


def test_a_kubelet_that_starts_anew_is_registered_with_again() -> None:
    async def story(node: Node) -> None:
        several = [tenant(f"team-{number}", store=number) for number in range(8)]
        await node.registrar.set_tenants(dict.fromkeys(several, True))
        for one in several:
            await node.offered(one.resource)
        for _ in range(5):
            sockets = {endpoint.socket for endpoint in node.kubelet.endpoints.values()}
            await node.kubelet.stop()
            await node.kubelet.start()
            for one in several:
                endpoint = await node.offered(one.resource)
                assert endpoint.socket not in sockets, "a name that was used before"
                await endpoint.allocate(shares.ids(one)[0])

    played(story)


def test_it_waits_for_a_kubelet_that_is_not_there_yet() -> None:
    async def story(node: Node) -> None:
        await node.kubelet.stop()
        (node.kubelet.folder / "kubelet.sock").unlink(missing_ok=True)
        one = tenant()
        await node.registrar.set_tenants({one: True})
        await asyncio.sleep(0.6)
        assert node.registrar.registered() == frozenset()
        await node.kubelet.start()
        await node.offered(one.resource)

    played(story)


AGENT = """\
import asyncio, sys
from pathlib import Path
from gismo_deviceplugin.kubelet.registrar import Registrar
from gismo_deviceplugin.kubelet.shares import Tenant

async def main():
    async def start(tenant, ids): pass
    one = Registrar(start, Path(sys.argv[1]))
    uuid = "0a1b2c3d-0000-4000-8000-000000000001"
    await one.set_tenants({Tenant("rack1", "team-a", uuid, 2, "/memory/team-a", False, f"/state/{uuid}", "/runtime"): True})
    await one.run()

asyncio.run(main())
"""


def test_an_agent_that_is_killed_leaves_nothing_that_the_next_one_does_not_mend() -> None:
    async def story(node: Node) -> None:
        folder, one = node.kubelet.folder, tenant()
        for _ in range(4):
            agent = subprocess.Popen([sys.executable, "-c", AGENT, str(folder)])
            try:
                endpoint = await node.offered(one.resource)
                await endpoint.allocate(shares.ids(one)[0])
            finally:
                os.kill(agent.pid, signal.SIGKILL)
                agent.wait()
            await eventually(lambda: node.kubelet.endpoints[one.resource].ended)
            assert set(node.kubelet.endpoints[one.resource].devices.values()) == {wire.UNHEALTHY}
        assert len(list(folder.glob("gismo-*.sock"))) == 1, "each swept what the one before had left"
        assert registrar.sweep(folder) == 1

    played(story)


def test_in_a_rolling_update_the_end_of_the_old_one_does_not_stop_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registrar, "_SETTLE_S", 0.2)

    async def story(node: Node) -> None:
        folder, one = node.kubelet.folder, tenant()
        old = subprocess.Popen([sys.executable, "-c", AGENT, str(folder)])
        try:
            await node.offered(one.resource)
            before = node.kubelet.endpoints[one.resource]
            await node.registrar.set_tenants({one: True})
            await eventually(lambda: node.kubelet.endpoints[one.resource] is not before)
            new = await node.offered(one.resource)
        finally:
            old.kill()
            old.wait()
        await eventually(lambda: new.ended)  # the kubelet's doing: nothing has happened to it
        client = PodResources(node.kubelet.pod_resources)

        async def mended() -> None:
            while node.kubelet.endpoints[one.resource].ended or not await client.allocatable():
                node.registrar.compare(await client.allocatable())
                await asyncio.sleep(0.1)

        await asyncio.wait_for(mended(), _WAIT_S)
        registrations = node.kubelet.registrations
        await asyncio.sleep(0.5)
        node.registrar.compare(await client.allocatable())
        await asyncio.sleep(0.5)
        assert node.kubelet.registrations == registrations, "what is accepted is left alone"
        await client.close()
        assert registrar.sweep(folder) == 1  # the killed one's

    played(story)


def test_a_socket_that_is_served_is_not_swept() -> None:
    async def story(node: Node) -> None:
        one = tenant()
        await node.registrar.set_tenants({one: True})
        endpoint = await node.offered(one.resource)
        assert registrar.sweep(node.kubelet.folder) == 0
        assert endpoint.socket.exists()

    played(story)
