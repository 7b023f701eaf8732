"""Who holds which share: the kubelet's own list (pod resources v1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from gismo_deviceplugin.kubelet import wire
from gismo_deviceplugin.kubelet.shares import GROUP

SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
_CALL_S = 5.0
_LARGEST = 16 << 20  # bytes of an answer, as kubectl-like clients of this API allow


@dataclass(frozen=True, slots=True)
class Held:
    """A share that a container holds."""

    resource: str
    share: str
    kubernetes_namespace: str
    pod: str
    container: str

    def __str__(self) -> str:
        return f"{self.kubernetes_namespace}/{self.pod}"


class PodResources:
    """A client of it. grpc.aio.AioRpcError where the kubelet is down."""

    def __init__(self, socket: Path = SOCKET) -> None:
        self._channel = grpc.aio.insecure_channel(
            f"unix://{socket}", options=[("grpc.max_receive_message_length", _LARGEST)]
        )

    async def held(self, prefix: str = f"{GROUP}/") -> list[Held]:
        """All shares that containers hold, of resources whose name begins so. Regular init containers are not in it."""
        answer = await self._call("List", wire.pods.ListPodResourcesRequest(), wire.pods.ListPodResourcesResponse)
        return [
            Held(devices.resource_name, share, pod.namespace, pod.name, container.name)
            for pod in answer.pod_resources
            for container in pod.containers
            for devices in container.devices
            if devices.resource_name.startswith(prefix)
            for share in devices.device_ids
        ]

    async def allocatable(self, prefix: str = f"{GROUP}/") -> dict[str, frozenset[str]]:
        """Shares that the kubelet has accepted as healthy, by resource."""
        request = wire.pods.AllocatableResourcesRequest()
        answer = await self._call("GetAllocatableResources", request, wire.pods.AllocatableResourcesResponse)
        found: dict[str, set[str]] = {}
        for devices in answer.devices:
            if devices.resource_name.startswith(prefix):
                found.setdefault(devices.resource_name, set()).update(devices.device_ids)
        return {name: frozenset(ids) for name, ids in found.items()}

    async def close(self) -> None:
        """No call after it."""
        await self._channel.close()

    async def _call(self, method: str, request: Any, response: Any) -> Any:
        call = self._channel.unary_unary(
            f"/{wire.pods.package}.PodResourcesLister/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return await call(request, timeout=_CALL_S)
