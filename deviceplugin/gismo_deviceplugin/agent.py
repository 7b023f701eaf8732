"""The agent as a process: what the API says goes into the memory, what the memory has goes to the kubelet and into statuses.

One event loop: kopf's informer, the kubelet's plugins, and a round that is begun by every change and every few seconds.
A round does the slow things (formatting touches every page) in a thread, so that the kubelet is answered meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import kopf
from kubernetes.utils.quantity import parse_quantity

from gismo_core import node_marker
from gismo_deviceplugin import cluster, runtime
from gismo_deviceplugin.admission import Admission
from gismo_deviceplugin.cluster import Cluster
from gismo_deviceplugin.kubelet import pod_resources, registrar, shares
from gismo_deviceplugin.kubelet.pod_resources import Held, PodResources
from gismo_deviceplugin.kubelet.registrar import Registrar
from gismo_deviceplugin.kubelet.shares import Injection, Tenant
from gismo_deviceplugin.pool import state, view
from gismo_deviceplugin.pool.dax import nodes
from gismo_deviceplugin.pool.dax.system import System
from gismo_deviceplugin.pool.media import CARVING, Media
from gismo_deviceplugin.pool.member import Member, Report
from gismo_deviceplugin.pool.state import StateDirectories
from gismo_deviceplugin.pool.view import Emulated, PoolView, RangeView
from gismo_deviceplugin.status import status
from gismo_kube import informer
from gismo_kube.connection import REFUSED, REQUEST_ERRORS, CannotStart, api_client, in_words, starting

logger = logging.getLogger("gismo.agent")

_ROUND_S = 2.0  # what no event tells: who holds a share, and what other nodes wrote into the memory


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    node: str
    kubeconfig: str | None = None
    device_plugins: Path = registrar.FOLDER
    pod_resources: Path = pod_resources.SOCKET
    state: Path = state.ROOT
    runtime: Path = Path("/var/lib/gismo/runtime")
    carving: Path = CARVING
    devices: Path = nodes.FOLDER
    system: System = field(default_factory=System)
    boot_id: str = field(default_factory=node_marker.boot_id)


class Agent:
    """Of one node, from run() to its end."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._state = StateDirectories(options.state)
        self._media = Media(options.boot_id, options.carving, options.devices, options.system)
        self._members: dict[str, Member] = {}
        self._offered: dict[str, Tenant] = {}  # by resource
        self._said: dict[str, dict[str, Any]] = {}  # by GismoNode, as it was written last
        self._held: list[Held] = []
        try:
            runtime.ensure(options.runtime)
        except runtime.NoRuntime as error:
            raise CannotStart(str(error)) from error
        with starting():
            self._api = api_client(options.kubeconfig)
            self._cluster = Cluster(self._api, self._wake_up)

    async def run(self) -> None:
        """Until a signal."""
        self._loop, self._wake, stop = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        self._pods = PodResources(self._options.pod_resources)
        admission = Admission(self._state, self._pods, self._options.boot_id)
        self._registrar = Registrar(admission.before_start, self._options.device_plugins)
        registry = informer.registry(self._api)
        self._cluster.register(registry)
        tasks = [asyncio.create_task(self._registrar.run()), asyncio.create_task(self._rounds(stop))]
        try:
            await kopf.operator(
                registry=registry,
                identity=cast(Any, self._options.node),  # kopf's own has the user's name, which a bare number has not
                clusterwide=True,
                standalone=True,
                stop_flag=stop,
            )
        except kopf.LoginError as error:
            raise CannotStart(REFUSED) from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._pods.close()

    def _wake_up(self) -> None:
        self._loop.call_soon_threadsafe(self._wake.set)

    async def _rounds(self, stop: asyncio.Event) -> None:
        told: str | None = None
        try:
            while True:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _ROUND_S)
                self._wake.clear()
                try:
                    regions = await asyncio.to_thread(self._regions)
                    if regions is not None and regions != told:
                        await asyncio.to_thread(self._cluster.say_regions, self._options.node, regions)
                        told = regions
                    if self._cluster.synced:
                        await self._round()
                except REQUEST_ERRORS as error:
                    logger.warning("again in %.0f s: %s", _ROUND_S, in_words(error))
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("a bug; the agent ends, and is to be started again")
            stop.set()

    def _regions(self) -> str | None:
        try:
            return self._media.regions()
        except (OSError, ValueError) as error:
            logger.warning("the CXL regions of this node cannot be read: %s", error)
            return None

    async def _round(self) -> None:
        try:
            self._held = await self._pods.held()
            self._registrar.compare(await self._pods.allocatable())
        except grpc.aio.AioRpcError as error:
            # Who holds what is not known: nothing may be taken for unused. The kubelet is starting, or is down.
            logger.info("the kubelet does not say who holds shares: %s", error.details())
            return
        nodes, ranges = self._cluster.objects("gismonodes"), self._cluster.objects("gismonamespaces")
        views = view.of_pool(self._options.node, nodes, ranges, lambda text: int(parse_quantity(text)))
        for pool in [name for name in self._members if name not in views]:
            del self._members[pool]
        offered: dict[Tenant, bool] = {}
        reports: dict[str, Report] = {}
        for name, one in views.items():
            if name not in self._members:
                self._members[name] = Member(self._state, self._holders, self._media, self._options.boot_id)
            reports[name] = await asyncio.to_thread(self._members[name].step, one)
            offered.update(self._tenants(one, reports[name]))
        self._offered = {tenant.resource: tenant for tenant in offered}
        await self._registrar.set_tenants(offered)
        mine = {one["spec"]["pool"]: one for one in nodes if one["spec"]["node"] == self._options.node}
        for name, report in reports.items():
            await asyncio.to_thread(self._say, mine[name], report)

    def _say(self, node: dict[str, Any], report: Report) -> None:
        """Only where it differs from what was said, or from what is there."""
        name, before = node["metadata"]["name"], node.get("status") or {}
        last = self._said.get(name)
        made = status(report, last or before, cluster.now(), node["metadata"]["generation"])
        if made != last or any(before.get(key) != value for key, value in made.items()):
            self._cluster.say(name, made)
            self._said[name] = made

    def _tenants(self, one: PoolView, report: Report) -> dict[Tenant, bool]:
        """What is ready is offered; what was offered and is not ready now stays, as unhealthy."""
        found = {}
        for each in one.ranges:
            tenant = self._tenant(one, each)
            ready = each.namespace in report.ready and one.me.standing == "Active"
            there = self._offered.get(tenant.resource)
            if ready or (there is not None and there.store_uuid == each.store_uuid and each.state == "Active"):
                found[tenant] = ready
        return found

    def _tenant(self, one: PoolView, each: RangeView) -> Tenant:
        return Tenant(
            pool=one.pool,
            namespace=each.namespace,
            store_uuid=each.store_uuid,
            shares=each.shares_per_node,
            memory=str(self._media.path(one.source, each.store_uuid)),
            is_device=not isinstance(one.source, Emulated),
            state=str(self._state.path(each.store_uuid)),
            runtime=str(self._options.runtime / runtime.CURRENT),
            injection=Injection(each.runtime_injection),
            kubernetes_namespaces=each.kubernetes_namespaces,
        )

    def _holders(self, store_uuid: str) -> tuple[str, ...]:
        """Pods that hold a share of this store."""
        return tuple(sorted({str(held) for held in self._held if shares.store_of(held.share) == store_uuid}))
