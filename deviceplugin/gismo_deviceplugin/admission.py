"""May a container start with its share? Asked by the kubelet at each start of it, so by what is so now."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from gismo_deviceplugin.kubelet.pod_resources import PodResources
from gismo_deviceplugin.kubelet.shares import Refused, Tenant
from gismo_deviceplugin.pool.state import StateDirectories


class Admission:
    """Of one node, in one boot of it."""

    def __init__(self, state: StateDirectories, pods: PodResources, boot_id: str) -> None:
        self._state = state
        self._pods = pods
        self._boot_id = boot_id

    async def before_start(self, tenant: Tenant, asked: Sequence[str]) -> None:
        """Refused, if not: the store is not prepared in this boot, or the pod's Kubernetes namespace has no access."""
        marker = self._state.marker(tenant.store_uuid)
        if marker is None or marker.boot_id != self._boot_id:
            raise Refused(f"{tenant.resource} is not prepared in this boot of the node: see `kubectl describe gnode`")
        try:
            held = await self._pods.held(tenant.resource)
        except grpc.aio.AioRpcError as error:
            raise Refused(f"the kubelet does not say which pod asks: {error.details()}") from error
        askers = {one.kubernetes_namespace for one in held if one.share in asked}
        if not askers:
            raise Refused(
                f"it cannot be seen which pod asks for {tenant.resource}: init containers cannot have a share"
            )
        for stranger in sorted(askers - tenant.kubernetes_namespaces):
            raise Refused(
                f"pods of the Kubernetes namespace {stranger} may not use {tenant.resource}: add {stranger} to "
                f"access.kubernetesNamespaces of {tenant.namespace} in GismoPool {tenant.pool}"
            )
