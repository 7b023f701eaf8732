"""A device plugin for one resource: the gRPC service that the kubelet calls, on a unix socket of its own."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from gismo_deviceplugin.kubelet import shares, wire
from gismo_deviceplugin.kubelet.shares import Refused, Tenant

logger = logging.getLogger("gismo.deviceplugin")

_PATH_BYTES = 107  # the kernel's limit for a unix socket
_GRACE_S = 1.0
PREFIX = "gismo-"

# Called before a container starts, with its shares; Refused, if it may not.
BeforeStart = Callable[[Tenant, Sequence[str]], Awaitable[None]]
# Called after each request: gRPC method, gRPC code, seconds.
Answered = Callable[[str, str, float], object]


class Plugin:
    """One resource. Its tenant may change its settings and its health while it serves, never its name."""

    def __init__(self, tenant: Tenant, before_start: BeforeStart, answered: Answered = lambda *_: None) -> None:
        self.tenant = tenant
        self._before_start = before_start
        self._answered = answered
        self._healthy = True
        self._changed = asyncio.Condition()
        self._version = 0
        self._closing = False
        self._server: grpc.aio.Server | None = None
        self.socket: Path | None = None

    async def serve(self, folder: Path) -> None:
        """Listen on a new socket in the kubelet's folder; an old one of this plugin ends.

        Each has a name that no other instance and no earlier socket has: an instance that ends removes its own only.
        """
        await self.stop()
        self._closing = False
        digest = hashlib.sha256(self.tenant.resource.encode()).hexdigest()[:12]
        path = folder / f"{PREFIX}{digest}-{os.urandom(6).hex()}.sock"
        if len(os.fsencode(path)) > _PATH_BYTES:
            raise ValueError(f"{path} is longer than the {_PATH_BYTES} bytes of a unix socket's address")
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self._handlers(),))
        server.add_insecure_port(f"unix://{path}")
        await server.start()
        self._server, self.socket = server, path

    async def answers(self, within_s: float) -> bool:
        """Does a call through its own socket come back? Where there is none, as while the kubelet is down, it is not to."""
        path = self.socket
        if path is None:
            return True
        async with grpc.aio.insecure_channel(f"unix://{path}") as channel:
            call = channel.unary_unary(
                f"/{wire.plugin.package}.DevicePlugin/GetDevicePluginOptions",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=wire.plugin.DevicePluginOptions.FromString,
            )
            try:
                await call(wire.plugin.Empty(), timeout=within_s)
            except grpc.aio.AioRpcError:
                return self.socket != path or not path.exists()
        return True

    @property
    def offered(self) -> frozenset[str]:
        """The shares that are healthy."""
        return frozenset(shares.ids(self.tenant)) if self._healthy else frozenset()

    async def stop(self) -> None:
        """Serve no more; streams end, and the kubelet takes the resource for unhealthy."""
        if self._server is None:
            return
        async with self._changed:
            self._closing = True
            self._changed.notify_all()
        server, path = self._server, self.socket
        self._server = self.socket = None
        await server.stop(_GRACE_S)
        if path is not None:
            path.unlink(missing_ok=True)

    async def update(self, tenant: Tenant, *, healthy: bool) -> None:
        """New settings, or another health: told to the kubelet where it changes what it sees."""
        if tenant.resource != self.tenant.resource:
            raise ValueError(f"{tenant.resource} is not {self.tenant.resource}")
        async with self._changed:
            seen = (shares.ids(self.tenant), self._healthy)
            self.tenant, self._healthy = tenant, healthy
            if seen != (shares.ids(tenant), healthy):
                self._version += 1
                self._changed.notify_all()

    def _handlers(self) -> Any:
        api = wire.plugin

        def unary(call: Callable[[Any, Any], Awaitable[Any]], request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                call, request.FromString, lambda message: message.SerializeToString()
            )

        def measured(name: str, call: Callable[[Any, Any], Awaitable[Any]], request: Any) -> Any:
            async def call_it(asked: Any, context: Any) -> Any:
                began, code = time.monotonic(), "UNKNOWN"
                try:
                    answer = await call(asked, context)
                    code = "OK"
                except Refused as error:
                    code = grpc.StatusCode.FAILED_PRECONDITION.name
                    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
                finally:
                    self._answered(name, code, time.monotonic() - began)
                return answer

            return unary(call_it, request)

        return grpc.method_handlers_generic_handler(
            f"{api.package}.DevicePlugin",
            {
                "GetDevicePluginOptions": unary(self._options, api.Empty),
                "Allocate": measured("Allocate", self._allocate, api.AllocateRequest),
                "PreStartContainer": measured("PreStartContainer", self._pre_start, api.PreStartContainerRequest),
                "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                    self._list_and_watch, api.Empty.FromString, lambda message: message.SerializeToString()
                ),
            },
        )

    async def _options(self, _request: Any, _context: Any) -> Any:
        return options()

    async def _list_and_watch(self, _request: Any, _context: Any) -> AsyncIterator[Any]:
        told = -1
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._closing or self._version != told)  # noqa: B023  (at once)
                if self._closing:
                    return
                told = self._version
                health = wire.HEALTHY if self._healthy else wire.UNHEALTHY
                devices = [wire.plugin.Device(ID=one, health=health) for one in shares.ids(self.tenant)]
            yield wire.plugin.ListAndWatchResponse(devices=devices)

    async def _allocate(self, request: Any, _context: Any) -> Any:
        tenant = self.tenant
        if not self._healthy:
            raise Refused(f"{tenant.resource} is not ready on this node: see `kubectl describe gnode`")
        for one in request.container_requests:
            shares.check_one(tenant, one.devices_ids)
        answers = [_answered(shares.answer(tenant, one.devices_ids[0])) for one in request.container_requests]
        return wire.plugin.AllocateResponse(container_responses=answers)

    async def _pre_start(self, request: Any, _context: Any) -> Any:
        tenant = self.tenant
        shares.check_one(tenant, request.devices_ids)
        await self._before_start(tenant, list(request.devices_ids))
        return wire.plugin.PreStartContainerResponse()


def options() -> Any:
    """Of every plugin here: PreStartContainer is asked for; all shares are equal, so none is preferred."""
    return wire.plugin.DevicePluginOptions(pre_start_required=True, get_preferred_allocation_available=False)


def _answered(one: shares.Answer) -> Any:
    return wire.plugin.ContainerAllocateResponse(
        envs=dict(one.envs),
        mounts=[
            wire.plugin.Mount(container_path=each.container_path, host_path=each.host_path, read_only=each.read_only)
            for each in one.mounts
        ],
        devices=[
            wire.plugin.DeviceSpec(container_path=each.container_path, host_path=each.host_path, permissions="rw")
            for each in one.devices
        ],
    )
