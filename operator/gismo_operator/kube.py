"""The only place that talks to the API server: reads what a decision needs, writes what was decided.

Everything is written by server-side apply under one field manager, and always with the `resourceVersion` that it was
decided on; what is deleted is named by its uid. Without it an old leader would silently overwrite the new one, as both are the same manager; with it
the old one gets a conflict. A new object is made by create, which fails where there is one by now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from kubernetes.dynamic.exceptions import ConflictError, DynamicApiError, NotFoundError

from gismo_kube.connection import dynamic_client
from gismo_kube.occurrence import Occurrence
from gismo_operator.api.v1alpha1 import (
    GROUP,
    VERSION,
    GismoNamespace,
    GismoNode,
    GismoPool,
    NodeSpec,
    RangeSpec,
)
from gismo_operator.conditions import Said, merged
from gismo_operator.lease import REQUEST_S
from gismo_operator.names import FINALIZER, node_object, others_finalizers, range_object
from gismo_operator.reconcile import occurrences
from gismo_operator.reconcile.observed import ClusterNode, Observed
from gismo_operator.reconcile.plan import Plan

MANAGER = "gismo-operator"
AGENT_ANNOTATION = "gismo.io/regions"  # an agent writes it to its Node: what memory there is
_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_PAGE = 500


class Stale(RuntimeError):
    """What was decided on has changed meanwhile, or somebody else decides: look again."""


class NotLeader(RuntimeError):
    """Another operator may be the one that writes by now: nothing was written."""


class Kube:
    """The objects of this operator on one API server.

    A pool and what belongs to it is read from etcd for each decision, narrowed to that pool: a range that a cache does not
    show yet would be given out a second time. Nodes of the cluster are many and large, and being late about them costs
    only time, so those may come from a cache (`cluster`).
    """

    def __init__(
        self,
        api: Any,
        *,
        cluster: Callable[[], Iterable[ClusterNode]] | None = None,
        may_write: Callable[[], bool] = lambda: True,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        tell: Callable[[Occurrence], object] = lambda _: None,
    ) -> None:
        client = dynamic_client(api)
        own = f"{GROUP}/{VERSION}"
        self._pools = client.resources.get(api_version=own, kind="GismoPool")
        self._ranges = client.resources.get(api_version=own, kind="GismoNamespace")
        self._nodes = client.resources.get(api_version=own, kind="GismoNode")
        nodes = client.resources.get(api_version="v1", kind="Node")
        self._cluster = cluster if cluster is not None else lambda: map(cluster_node, self._list(nodes))
        self._may_write = may_write
        self._now = now
        self._tell = tell

    # ---- reading ---------------------------------------------------------------------------------

    def observe(self, pool: str) -> Observed:
        """All that a decision about this pool depends on, but for what depends on the time."""
        try:
            wanted = GismoPool.model_validate(self._pools.get(name=pool, _request_timeout=REQUEST_S).to_dict())
        except NotFoundError:
            wanted = None
        of_pool = f"spec.pool={pool}"
        ranges = [GismoNamespace.model_validate(one) for one in self._list(self._ranges, of_pool)]
        nodes = [GismoNode.model_validate(one) for one in self._list(self._nodes, of_pool)]
        return Observed(
            pool=pool,
            wanted=wanted if wanted is not None and wanted.metadata.deletion_timestamp is None else None,
            namespaces=tuple(ranges),
            nodes=tuple(nodes),
            cluster=tuple(self._cluster()),
        )

    def _list(self, resource: Any, fields: str | None = None) -> Iterable[dict[str, Any]]:
        token = None
        while True:
            answer = resource.get(
                limit=_PAGE, _continue=token, field_selector=fields, _request_timeout=REQUEST_S
            ).to_dict()
            yield from answer["items"]
            token = answer["metadata"].get("continue")
            if not token:
                return

    # ---- writing ---------------------------------------------------------------------------------

    def carry_out(self, observed: Observed, plan: Plan) -> bool:
        """Make it so; whether anything was written. Stale: look again."""
        wrote = False
        written: dict[str, str] = {}  # Gismo namespace → the resourceVersion that its object has by that
        ranges = {one.spec.namespace: one for one in observed.namespaces}
        for name, spec in plan.ranges.items():
            there = ranges.get(name)
            if there is None or there.spec != spec or _lacks_finalizer(there):
                body = _body("GismoNamespace", range_object(spec.pool, name), spec, there)
                body["metadata"]["finalizers"] = [FINALIZER]
                written[name] = self._write(self._ranges, body, there is None)
                wrote = True
        nodes = {one.spec.node: one for one in observed.nodes}
        # Who is not the writer any more learns it before the next one does: never two.
        for name, node in sorted(plan.nodes.items(), key=lambda item: item[1].writer):
            at = nodes.get(name)
            if at is None or at.spec != node:
                body = _body("GismoNode", node_object(node.pool, name), node, at)
                self._write(self._nodes, body, at is None)
                self._told(occurrences.of_node(at, node) if at is not None else ())
                wrote = True
        for name in plan.released:
            if FINALIZER in ranges[name].metadata.finalizers or ranges[name].metadata.deletion_timestamp is None:
                self._release(ranges[name])
                wrote = True
        return self._say(observed, plan, written) or wrote

    def _ask(self) -> None:
        if not self._may_write():
            raise NotLeader("this operator does not lead any more")

    def _write(self, resource: Any, body: dict[str, Any], is_new: bool) -> str:
        """The resourceVersion that the object has by that."""
        self._ask()
        try:
            if is_new:
                answer = resource.create(body=body, field_manager=MANAGER, _request_timeout=REQUEST_S)
            else:
                answer = resource.server_side_apply(
                    body=body,
                    name=body["metadata"]["name"],
                    field_manager=MANAGER,
                    force_conflicts=True,
                    _request_timeout=REQUEST_S,
                )
        except (ConflictError, NotFoundError) as error:
            raise Stale(f"{body['kind']} {body['metadata']['name']}: {_summary(error)}") from error
        return str(answer.metadata.resourceVersion)

    def _release(self, one: GismoNamespace) -> None:
        """Its bytes are nobody's any more: take our finalizer off, and delete it; it, and not a later one of that name."""
        metadata = one.metadata
        itself = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": metadata.uid}}
        try:
            self._ask()
            self._ranges.patch(
                name=metadata.name,
                body={
                    "metadata": {
                        "resourceVersion": metadata.resource_version,
                        "finalizers": others_finalizers(metadata.finalizers),
                    }
                },
                content_type="application/merge-patch+json",
                field_manager=MANAGER,
                _request_timeout=REQUEST_S,
            )
            self._ask()
            self._ranges.delete(name=metadata.name, body=itself, _request_timeout=REQUEST_S)
        except NotFoundError:
            return  # it was being deleted, and the finalizer was all that held it
        except ConflictError as error:
            raise Stale(f"GismoNamespace {one.metadata.name}: {_summary(error)}") from error

    def _say(self, observed: Observed, plan: Plan, written: Mapping[str, str]) -> bool:
        wrote = False
        if observed.wanted is not None:
            pool = observed.wanted
            status = {
                "observedGeneration": pool.metadata.generation,
                "layoutVersion": plan.layout_version,
                "capacity": plan.pool.capacity,
                "allocated": plan.pool.allocated,
                "free": plan.pool.free,
                "largestFree": plan.pool.largest_free,
                "namespacesReady": plan.pool.namespaces_ready,
                "nodesReady": plan.pool.nodes_ready,
            }
            version = pool.metadata.resource_version
            wrote = self._status(self._pools, pool, version, status, plan.pool.conditions)
            if wrote:
                self._told(occurrences.of_pool(pool, plan.pool.conditions))
        for one in observed.namespaces:
            said = plan.namespaces.get(one.spec.namespace)
            if said is not None:
                status = {"observedGeneration": one.metadata.generation, "nodesReady": said.nodes_ready}
                version = written.get(one.spec.namespace, one.metadata.resource_version)
                if self._status(self._ranges, one, version, status, said.conditions):
                    self._told(occurrences.of_namespace(one, plan.ranges[one.spec.namespace], said.conditions))
                    wrote = True
        return wrote

    def _told(self, what: Iterable[Occurrence]) -> None:
        """What was written is told, and only then."""
        for one in what:
            self._tell(one)

    def _status(
        self,
        resource: Any,
        there: GismoPool | GismoNamespace,
        version: str,
        status: dict[str, Any],
        said: Iterable[Said],
    ) -> bool:
        """Write a status where it differs from the one that was observed: at rest nothing is written."""
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = merged(there.status.conditions, said, stamp, there.metadata.generation)
        wanted = {key: value for key, value in status.items() if value is not None}
        wanted["conditions"] = [one.model_dump(by_alias=True, mode="json", exclude_none=True) for one in conditions]
        if wanted == there.status.model_dump(by_alias=True, mode="json", exclude_none=True):
            return False
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": type(there).__name__,
            "metadata": {"name": there.metadata.name, "resourceVersion": version},
            "status": wanted,
        }
        self._ask()
        try:
            resource.status.server_side_apply(
                body=body,
                name=there.metadata.name,
                field_manager=MANAGER,
                force_conflicts=True,
                _request_timeout=REQUEST_S,
            )
        except (ConflictError, NotFoundError) as error:
            raise Stale(f"{body['kind']} {there.metadata.name}: {_summary(error)}") from error
        return True


def _body(kind: str, name: str, spec: RangeSpec | NodeSpec, there: GismoNamespace | GismoNode | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": {"gismo.io/pool": spec.pool}}
    if there is not None:
        metadata["resourceVersion"] = there.metadata.resource_version
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": kind,
        "metadata": metadata,
        "spec": spec.model_dump(by_alias=True, mode="json", exclude_none=True),
    }


def _lacks_finalizer(one: GismoNamespace) -> bool:
    """Somebody took it off: an uninstall, before this operator came. It cannot be put on what is being deleted."""
    return one.metadata.deletion_timestamp is None and FINALIZER not in one.metadata.finalizers


def cluster_node(one: Mapping[str, Any]) -> ClusterNode:
    """What of a Node matters here."""
    metadata, status = one["metadata"], one.get("status") or {}
    ready = [each["status"] for each in status.get("conditions") or [] if each["type"] == "Ready"]
    taints = {taint["key"] for taint in one.get("spec", {}).get("taints") or []}
    return ClusterNode(
        name=metadata["name"],
        labels=metadata.get("labels") or {},
        boot_id=(status.get("nodeInfo") or {}).get("bootID", ""),
        ready=ready == ["True"],
        out_of_service=_OUT_OF_SERVICE in taints,
        has_agent=AGENT_ANNOTATION in (metadata.get("annotations") or {}),
    )


def _summary(error: DynamicApiError) -> str:
    return str(error.summary())
