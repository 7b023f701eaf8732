"""The agent as a process: what the API says goes into the memory, what the memory has goes to the kubelet and into statuses.

One event loop: kopf's informer, the kubelet's plugins, and a round that is begun by every change and every few seconds.
A round does the slow things (formatting touches every page) in a thread, so that the kubelet is answered meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import kopf
from kubernetes.utils.quantity import parse_quantity

from gismo_core import node_marker
from gismo_deviceplugin import cluster, loading, runtime
from gismo_deviceplugin.admission import Admission
from gismo_deviceplugin.cluster import FOLLOWED, Cluster
from gismo_deviceplugin.health import ROUND_S, Beat
from gismo_deviceplugin.kubelet import pod_resources, registrar, shares
from gismo_deviceplugin.kubelet.pod_resources import Held, PodResources
from gismo_deviceplugin.kubelet.registrar import Registrar
from gismo_deviceplugin.kubelet.shares import Injection, Tenant
from gismo_deviceplugin.loading import Unloaded
from gismo_deviceplugin.metrics import Metrics, Share, Snapshot
from gismo_deviceplugin.pool import state, view
from gismo_deviceplugin.pool.dax import nodes
from gismo_deviceplugin.pool.dax.system import System
from gismo_deviceplugin.pool.media import CARVING, Media
from gismo_deviceplugin.pool.member import Member, NotLoaded, Report
from gismo_deviceplugin.pool.proof import PATIENCE_S
from gismo_deviceplugin.pool.state import StateDirectories
from gismo_deviceplugin.pool.view import Emulated, PoolView, RangeView
from gismo_deviceplugin.status import differs, occurrences, status
from gismo_kube import events, informer
from gismo_kube.connection import REQUEST_ERRORS, CannotStart, api_client, in_words, starting
from gismo_kube.endpoint import Endpoint
from gismo_kube.following import Following

logger = logging.getLogger("gismo.agent")

_ROUND_S = 2.0  # what no event tells: who holds a share, and what other nodes wrote into the memory
# That the writer has seen what this node wrote stands in the memory, and no event tells it: so it is looked for more often, for
# as long as an agent takes that is well.
_PROOF_S, _PROOFS = 0.1, 50
_SOCKET_S = 2.0  # for an answer through a socket of our own
_EVENTS_END_S = 2.0


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
    patience_s: float = PATIENCE_S
    listen: tuple[str | None, int] | None = None  # for metrics and probes; host None: all addresses
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
        self._beat = Beat("the round", ROUND_S)
        self._following = Following(*FOLLOWED)
        self._metrics = Metrics()
        self._is_known = False  # a round has been through, with all that there is and an answer of the kubelet
        self._failed = False
        self._unproven = 0  # rounds in a row in which a memory was not proven yet
        self._looker = loading.Looker()
        self._looked_at = -math.inf
        self._unloaded: tuple[Unloaded, ...] = ()
        try:
            runtime.ensure(options.runtime)
        except runtime.NoRuntime as error:
            raise CannotStart(str(error)) from error
        with starting():
            self._api = api_client(options.kubeconfig)
            self._cluster = Cluster(self._api, self._wake_up)
            self._events = events.recorder(self._api, "agent", options.node, self._metrics.told)

    async def run(self) -> int:
        """Until a signal: 0; 1 where a part of it has failed, to be started again."""
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        self._pods = PodResources(self._options.pod_resources)
        admission = Admission(self._state, self._pods, self._options.boot_id)
        self._registrar = Registrar(
            admission.before_start,
            self._options.device_plugins,
            answered=self._metrics.request,
            done=lambda well: self._metrics.registrations.labels("done" if well else "failed").inc(),
        )
        registry = informer.registry(self._api, self._following)
        self._cluster.register(registry)
        served = Endpoint(self._metrics.registry, self._live, self._ready)
        if self._options.listen is not None:
            await served.start(self._options.listen)
        running = informer.Running(registry, self._options.node)
        parts = (self._registrar.run(), self._rounds())
        tasks = [asyncio.create_task(self._kept(part, running.stop)) for part in parts]

        async def end() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        @kopf.on.cleanup(registry=registry)
        async def early(**_: Any) -> None:
            await end()  # kopf would wait for what the parts have begun, since it takes that for its own

        try:
            await running.run()
        finally:
            await end()
            await self._pods.close()
            await served.stop()
            await asyncio.to_thread(self._events.close, _EVENTS_END_S)
        return 1 if self._failed else 0

    async def _kept(self, part: Coroutine[Any, Any, None], stop: Callable[[], object]) -> None:
        """A part that has to go on for as long as the agent does: where it ends, all ends."""
        try:
            await part
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("a bug; the agent ends, and is to be started again")
            self._failed = True
            stop()

    async def _live(self) -> Iterable[str]:
        """What only a new start would mend: not an API server or a kubelet that is down."""
        sockets = await self._registrar.problems(_SOCKET_S)
        return [*self._beat.problems(), *self._registrar.beat.problems(), *self._following.problems(), *sockets]

    async def _ready(self) -> Iterable[str]:
        """Does the kubelet have what this node has to offer? An upgrade waits for it with the old agent."""
        if not self._is_known:
            unlisted = self._following.unlisted()
            return [
                f"not listed yet: {', '.join(sorted(unlisted))}"
                if unlisted
                else "no round has been through yet: does the kubelet answer?"
            ]
        unknown = sorted(self._registrar.offered() - self._registrar.registered())
        return [f"not registered with the kubelet: {', '.join(unknown)}"] if unknown else []

    def _wake_up(self) -> None:
        self._loop.call_soon_threadsafe(self._wake.set)

    async def _rounds(self) -> None:
        told: str | None = None
        listed = False
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _PROOF_S if 0 < self._unproven <= _PROOFS else _ROUND_S)
            self._wake.clear()
            self._beat()
            try:
                regions = await asyncio.to_thread(self._regions)
                if regions is not None and regions != told:
                    await asyncio.to_thread(self._cluster.say_regions, self._options.node, regions)
                    told = regions
                # Where there is nothing at all, no event says so: what was listed a round ago would be known by now.
                if self._cluster.synced or listed:
                    with self._metrics.round_seconds.time():
                        done = await self._round()
                    self._is_known = self._is_known or done
                    self._metrics.rounds.labels("done" if done else "no_kubelet").inc()
            except REQUEST_ERRORS as error:
                self._metrics.rounds.labels("no_api_server").inc()
                logger.warning("again in %.0f s: %s", _ROUND_S, in_words(error))
            listed = not self._following.unlisted()

    def _regions(self) -> str | None:
        try:
            return self._media.regions()
        except (OSError, ValueError) as error:
            logger.warning("the CXL regions of this node cannot be read: %s", error)
            return None

    async def _round(self) -> bool:
        """Whether it could be done."""
        try:
            self._held = await self._pods.held()
            self._registrar.compare(await self._pods.allocatable())
        except grpc.aio.AioRpcError as error:
            # Who holds what is not known: nothing may be taken for unused. The kubelet is starting, or is down.
            logger.info("the kubelet does not say who holds shares: %s", error.details())
            return False
        nodes, ranges = self._cluster.objects("gismonodes"), self._cluster.objects("gismonamespaces")
        await self._look_for_unloaded()
        views = view.of_pool(self._options.node, nodes, ranges, lambda text: int(parse_quantity(text)))
        for pool in [name for name in self._members if name not in views]:
            del self._members[pool]
        offered: dict[Tenant, bool] = {}
        reports: dict[str, Report] = {}
        for name, one in views.items():
            if name not in self._members:
                self._members[name] = Member(
                    self._state,
                    self._holders,
                    self._media,
                    self._options.boot_id,
                    beat=self._beat,
                    patience_s=self._options.patience_s,
                )
            report = await asyncio.to_thread(self._members[name].step, one)
            reports[name] = replace(report, not_loaded=tuple(self._not_loaded(one)))
            offered.update(self._tenants(one, reports[name]))
        is_unproven = any(report.nonce is not None and report.same_memory is None for report in reports.values())
        self._unproven = self._unproven + 1 if is_unproven else 0
        self._offered = {tenant.resource: tenant for tenant in offered}
        await self._registrar.set_tenants(offered)
        mine = {one["spec"]["pool"]: one for one in nodes if one["spec"]["node"] == self._options.node}
        said = {name: await asyncio.to_thread(self._say, mine[name], report) for name, report in reports.items()}
        waiting = {name: len(report.waiting) for name, report in reports.items()}
        self._metrics.found(Snapshot(said, waiting, tuple(self._shares(offered))))
        return True

    def _shares(self, offered: Mapping[Tenant, bool]) -> Iterable[Share]:
        held = Counter(one.resource for one in self._held)
        known = self._registrar.registered()
        for tenant, healthy in offered.items():
            yield Share(tenant, healthy, tenant.resource in known, held[tenant.resource])

    def _say(self, node: dict[str, Any], report: Report) -> dict[str, Any]:
        """Only where it differs from what was said, or from what is there. What is said now."""
        name, before = node["metadata"]["name"], node.get("status") or {}
        last = self._said.get(name)
        made = status(report, last or before, cluster.now(), node["metadata"]["generation"])
        if made != last or differs(before, made):
            self._cluster.say(name, made)
            self._said[name] = made
            for one in occurrences(node, last or before, made):
                self._events.tell(one)
        return made

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

    async def _look_for_unloaded(self) -> None:
        if time.monotonic() - self._looked_at >= loading.LOOK_S:
            self._unloaded = await asyncio.to_thread(self._looker.look, self._held)
            self._looked_at = time.monotonic()

    def _not_loaded(self, one: PoolView) -> Iterable[NotLoaded]:
        """In this pool."""
        tenants = {each.store_uuid: self._tenant(one, each) for each in one.ranges}
        for unloaded in self._unloaded:
            tenant = tenants.get(shares.store_of(unloaded.held.share))
            if tenant is not None:
                message = loading.message(tenant, unloaded)
                yield NotLoaded(tenant.namespace, str(unloaded.held), unloaded.reason, message)

    def _holders(self, store_uuid: str) -> tuple[str, ...]:
        """Pods that hold a share of this store."""
        return tuple(sorted({str(held) for held in self._held if shares.store_of(held.share) == store_uuid}))
