"""The kubelet's end of the device plugin API, in process: real gRPC on real sockets, without containers.

It does as the kubelet does where that matters to a plugin: at its start it removes what lies in its folder and makes
kubelet.sock; at a registration it calls the plugin back and follows its list; a new registration of a resource takes the
place of the old one; a stream that ends makes the resource unhealthy.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from gismo_deviceplugin.kubelet import wire


def _bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


@dataclass
class Endpoint:
    """A plugin that registered."""

    socket: Path
    channel: Any
    devices: dict[str, str] = field(default_factory=dict)  # id → health
    lists: int = 0  # that it has sent
    following: asyncio.Task[None] | None = None
    ended: bool = False

    async def call(self, method: str, request: Any, response: Any) -> Any:
        call = self.channel.unary_unary(
            f"/v1beta1.DevicePlugin/{method}", request_serializer=_bytes, response_deserializer=response.FromString
        )
        return await call(request, timeout=30)

    async def allocate(self, *ids: str) -> Any:
        """The answer for one container. grpc.aio.AioRpcError with the plugin's words."""
        one = wire.plugin.ContainerAllocateRequest(devices_ids=ids)
        request = wire.plugin.AllocateRequest(container_requests=[one])
        answer = await self.call("Allocate", request, wire.plugin.AllocateResponse)
        return answer.container_responses[0]

    async def pre_start(self, *ids: str) -> None:
        """As before each start of a container."""
        request = wire.plugin.PreStartContainerRequest(devices_ids=ids)
        await self.call("PreStartContainer", request, wire.plugin.PreStartContainerResponse)


@dataclass
class Pod:
    """One container with one share."""

    namespace: str
    name: str
    resource: str
    share: str
    answer: Any = None  # to Allocate


class Kubelet:
    """Start and stop it as often as you like, in one folder. Its pods stay, as the real one's do by its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoints: dict[str, Endpoint] = {}
        self._connected: list[Endpoint] = []  # those of before among them
        self.registrations = 0
        self.pods: list[Pod] = []
        self._listed: tuple[list[Pod] | None, Any] = (None, None)
        self._server: Any = None
        self.answers = asyncio.Event()  # cleared: it takes a registration, and its answer is under way
        self.answers.set()

    @property
    def pod_resources(self) -> Path:
        """Its other socket."""
        return self.folder / "pod-resources.sock"

    async def run_pod(self, namespace: str, name: str, resource: str) -> Pod:
        """Admit a pod and start its container. grpc.aio.AioRpcError with the plugin's words, and the pod is gone again."""
        endpoint = self.endpoints[resource]
        taken = {pod.share for pod in self.pods}
        share = next(one for one, health in endpoint.devices.items() if health == wire.HEALTHY and one not in taken)
        pod = Pod(namespace, name, resource, share)
        self.pods.append(pod)
        try:
            pod.answer = await endpoint.allocate(share)
            await endpoint.pre_start(share)
        except BaseException:
            self.pods.remove(pod)
            raise
        return pod

    async def start(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()
        self.endpoints.clear()
        self._connected.clear()
        self._server = grpc.aio.server()
        register = grpc.unary_unary_rpc_method_handler(self._register, wire.plugin.RegisterRequest.FromString, _bytes)
        handlers = grpc.method_handlers_generic_handler("v1beta1.Registration", {"Register": register})
        self._server.add_generic_rpc_handlers((handlers,))
        listing = grpc.unary_unary_rpc_method_handler(self._list, wire.pods.ListPodResourcesRequest.FromString, _bytes)
        accepting = grpc.unary_unary_rpc_method_handler(
            self._allocatable, wire.pods.AllocatableResourcesRequest.FromString, _bytes
        )
        lister = grpc.method_handlers_generic_handler(
            "v1.PodResourcesLister", {"List": listing, "GetAllocatableResources": accepting}
        )
        self._server.add_generic_rpc_handlers((lister,))
        self._server.add_insecure_port(f"unix://{self.pod_resources}")
        self._server.add_insecure_port(f"unix://{self.folder / 'kubelet.sock'}")
        await self._server.start()

    async def stop(self) -> None:
        for endpoint in self._connected:
            await self._let_go(endpoint)
        await self._server.stop(0)

    async def _let_go(self, endpoint: Endpoint) -> None:
        if endpoint.following is not None:
            endpoint.following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await endpoint.following
        await endpoint.channel.close()

    async def _list(self, _request: Any, _context: Any) -> Any:
        """Made anew only when pods came or went: the real one is not so slow at it that it would count."""
        if self._listed[0] != self.pods:
            self._listed = (list(self.pods), self._made_list())
        return self._listed[1]

    def _made_list(self) -> Any:
        answer = wire.pods.ListPodResourcesResponse()
        for pod in self.pods:
            one = answer.pod_resources.add(name=pod.name, namespace=pod.namespace)
            one.containers.add(name="main").devices.add(resource_name=pod.resource, device_ids=[pod.share])
        return answer

    async def _register(self, request: Any, context: Any) -> Any:
        self.registrations += 1
        if request.version != "v1beta1" or "/" in request.endpoint or not request.options.pre_start_required:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a wrong registration: {request}")
        socket = self.folder / request.endpoint
        endpoint = Endpoint(socket, grpc.aio.insecure_channel(f"unix://{socket}"))
        self.endpoints[request.resource_name] = endpoint
        self._connected.append(endpoint)
        endpoint.following = asyncio.create_task(self._follow(endpoint, request.resource_name))
        await self.answers.wait()
        return wire.plugin.Empty()

    async def _follow(self, endpoint: Endpoint, resource: str) -> None:
        stream = endpoint.channel.unary_stream(
            "/v1beta1.DevicePlugin/ListAndWatch",
            request_serializer=_bytes,
            response_deserializer=wire.plugin.ListAndWatchResponse.FromString,
        )(wire.plugin.Empty())
        try:
            async for answer in stream:
                endpoint.devices = {device.ID: device.health for device in answer.devices}
                endpoint.lists += 1
        except grpc.aio.AioRpcError:
            pass
        # As the real one does (PluginDisconnected): whose resource has this name by now is stopped, be it another instance.
        for one in (endpoint, self.endpoints.get(resource, endpoint)):
            one.ended = True
            one.devices = dict.fromkeys(one.devices, wire.UNHEALTHY)

    async def _allocatable(self, _request: Any, _context: Any) -> Any:
        answer = wire.pods.AllocatableResourcesResponse()
        for resource, endpoint in self.endpoints.items():
            healthy = [one for one, health in endpoint.devices.items() if health == wire.HEALTHY]
            if healthy and not endpoint.ended:
                answer.devices.add(resource_name=resource, device_ids=healthy)
        return answer
