"""Keeps a set of plugins registered with the kubelet: at the start, when the set changes, and whenever the kubelet starts anew.

A kubelet that starts empties its folder of sockets and makes kubelet.sock anew. Then every plugin gets a new socket and is
registered again. The folder is looked at four times a second: what has to be seen is a file that was replaced, also where
the folder itself was, which a watch of the folder would miss.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc

from gismo_deviceplugin.health import LOOK_S, Beat
from gismo_deviceplugin.kubelet import wire
from gismo_deviceplugin.kubelet.plugin import PREFIX, Answered, BeforeStart, Plugin, options
from gismo_deviceplugin.kubelet.shares import Tenant

logger = logging.getLogger("gismo.deviceplugin")

FOLDER = Path("/var/lib/kubelet/device-plugins")
_KUBELET = "kubelet.sock"
_LOOK_S = 0.25
_REGISTER_S = 5.0
_ASKED = 8  # sockets of ours for each probe
_SETTLE_S = 1.5  # after which the kubelet has accepted what was registered, or has lost it


class Registrar:
    """All resources of this node. Used from one event loop."""

    def __init__(
        self,
        before_start: BeforeStart,
        folder: Path = FOLDER,
        *,
        answered: Answered = lambda *_: None,
        done: Callable[[bool], object] = lambda _: None,
    ) -> None:
        """answered: of each request of the kubelet. done: of each registration, whether it went well."""
        self._before_start = before_start
        self._folder = folder
        self._answered = answered
        self._done = done
        self.beat = Beat("looking for the kubelet", LOOK_S)
        self._plugins: dict[str, Plugin] = {}  # by resource
        self._registered: dict[str, tuple[int, int]] = {}  # resource → the kubelet.sock that knows it
        self._since: dict[str, float] = {}  # resource → when it was registered or offered otherwise, monotonic
        self._wake = asyncio.Event()
        self._asked = 0

    async def set_tenants(self, tenants: Mapping[Tenant, bool]) -> None:
        """What is to be offered from now on, and whether it is healthy. One that is gone is not served any more."""
        wanted = {tenant.resource: (tenant, healthy) for tenant, healthy in tenants.items()}
        for resource in [name for name in self._plugins if name not in wanted]:
            await self._plugins.pop(resource).stop()
            self._registered.pop(resource, None)
            self._since.pop(resource, None)
        for resource, (tenant, healthy) in wanted.items():
            if resource not in self._plugins:
                self._plugins[resource] = Plugin(tenant, self._before_start, self._answered)
            plugin = self._plugins[resource]
            before = plugin.offered
            await plugin.update(tenant, healthy=healthy)
            if plugin.offered != before:
                self._since[resource] = time.monotonic()
        self._wake.set()

    def offered(self) -> frozenset[str]:
        """The resources that are to be known to the kubelet."""
        return frozenset(self._plugins)

    async def problems(self, within_s: float) -> Iterable[str]:
        """Sockets of ours that do not answer, in words. Some of them each time, by turns: all have one server's threads."""
        plugins = sorted(self._plugins.items())
        first = self._asked % max(1, len(plugins))
        asked = (plugins[first:] + plugins[:first])[:_ASKED]
        self._asked += len(asked)
        answers = await asyncio.gather(*(plugin.answers(within_s) for _, plugin in asked))
        return [
            f"the socket of {name} does not answer" for (name, _), well in zip(asked, answers, strict=True) if not well
        ]

    def compare(self, accepted: Mapping[str, frozenset[str]]) -> None:
        """What the kubelet has of what is offered; what it has lost is registered anew."""
        now, known = time.monotonic(), self.registered()
        for resource, plugin in self._plugins.items():  # not of what is going
            if (
                resource not in known
                or plugin.offered <= accepted.get(resource, frozenset())
                or now - self._since.get(resource, now) < _SETTLE_S
            ):
                continue
            logger.warning("the kubelet has lost %s, as when another instance ends; it is registered anew", resource)
            self._registered.pop(resource)
            self._wake.set()

    def registered(self) -> frozenset[str]:
        """The resources that the kubelet that runs now knows."""
        now = self._kubelet()
        return frozenset(name for name, known in self._registered.items() if known == now)

    async def run(self) -> None:
        """For ever; cancel it to end. Plugins are stopped then."""
        sweep(self._folder)
        try:
            while True:
                self.beat()
                await self._look()
                try:
                    await asyncio.wait_for(self._wake.wait(), _LOOK_S)
                except asyncio.TimeoutError:
                    pass
                self._wake.clear()
        finally:
            await asyncio.gather(*(plugin.stop() for plugin in self._plugins.values()))

    async def _look(self) -> None:
        kubelet = self._kubelet()
        if kubelet is None:
            return
        todo = [
            plugin
            for resource, plugin in list(self._plugins.items())
            if self._registered.get(resource) != kubelet or plugin.socket is None or not plugin.socket.exists()
        ]
        if not todo:
            return
        channel = grpc.aio.insecure_channel(f"unix://{self._folder / _KUBELET}")
        try:
            done = await asyncio.gather(*(self._register(channel, plugin, kubelet) for plugin in todo))
            for one in done:
                self._done(one)
        finally:
            await channel.close()
        if any(done):
            logger.info("registered %d of %d resources with the kubelet", sum(done), len(todo))

    async def _register(self, channel: Any, plugin: Plugin, kubelet: tuple[int, int]) -> bool:
        """Serve first: the kubelet calls back as soon as it is told."""
        resource = plugin.tenant.resource
        try:
            await plugin.serve(self._folder)
            socket_path = plugin.socket
            if socket_path is None or self._plugins.get(resource) is not plugin:
                await plugin.stop()
                return False  # it went meanwhile
            request = wire.plugin.RegisterRequest(
                version=wire.VERSION, endpoint=socket_path.name, resource_name=resource, options=options()
            )
            call = channel.unary_unary(
                f"/{wire.plugin.package}.Registration/Register",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=wire.plugin.Empty.FromString,
            )
            await call(request, timeout=_REGISTER_S)
        except (grpc.aio.AioRpcError, OSError, RuntimeError) as error:
            detail = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
            logger.warning("%s is not registered, and is tried again: %s", resource, detail)
            self._registered.pop(resource, None)
            return False
        if self._plugins.get(resource) is not plugin:
            return False  # it went while the kubelet was told
        self._registered[resource] = kubelet
        self._since[resource] = time.monotonic()
        return True

    def _kubelet(self) -> tuple[int, int] | None:
        """Which kubelet.sock there is: inode and time of its making."""
        try:
            found = (self._folder / _KUBELET).stat()
        except OSError:
            return None
        return found.st_ino, found.st_ctime_ns


def sweep(folder: Path) -> int:
    """Remove sockets of ours that nobody serves any more: an agent that was killed leaves them. How many."""
    removed = 0
    for path in folder.glob(f"{PREFIX}*.sock"):
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(1.0)
            try:
                one.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
                removed += 1
            except OSError:
                continue
    return removed
