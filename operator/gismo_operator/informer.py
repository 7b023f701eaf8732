"""What changes in the cluster, as kopf tells it: it makes pools due, and nothing else.

kopf is an informer here (gismo_kube.informer); its index makes all Nodes known before the first event is told.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import kopf

from gismo_operator.api.v1alpha1 import GROUP, VERSION
from gismo_operator.due import Due
from gismo_operator.kube import cluster_node
from gismo_operator.reconcile.observed import ClusterNode

FOLLOWED = ("nodes", "gismopools", "gismonamespaces", "gismonodes")


class Informer:
    """Knows the Nodes of the cluster and the names of all pools; tells `due` which pools have changed."""

    def __init__(self, due: Due) -> None:
        self._due = due
        self._lock = threading.Lock()
        self._nodes: dict[str, ClusterNode] = {}
        self._told: dict[str, ClusterNode] = {}  # of them, what pools were made due for
        self._pools: set[str] = set()

    def nodes(self) -> tuple[ClusterNode, ...]:
        """All Nodes, as of the last events."""
        with self._lock:
            return tuple(self._nodes.values())

    def all_due(self) -> None:
        """Every pool is to be looked at: a new leader, or a Node that has changed."""
        with self._lock:
            pools = sorted(self._pools)
        for pool in pools:
            self._due.add(pool)

    def register(self, registry: kopf.OperatorRegistry) -> None:
        """The handlers."""

        @kopf.index("", "v1", "nodes", registry=registry, id="cluster")
        def known(name: str, body: kopf.Body, **_: Any) -> None:
            with self._lock:
                self._nodes[name] = cluster_node(body)

        @kopf.on.event("", "v1", "nodes", registry=registry)
        def node(name: str, body: kopf.Body, type: str | None, **_: Any) -> None:  # noqa: A002  (kopf's name)
            if self._tell(name, None if type == "DELETED" else body):
                self.all_due()

        @kopf.on.event(GROUP, VERSION, "gismopools", registry=registry)
        def pool(name: str, **_: Any) -> None:
            self._pool(name)

        @kopf.on.event(GROUP, VERSION, "gismonamespaces", registry=registry)
        @kopf.on.event(GROUP, VERSION, "gismonodes", registry=registry)
        def child(spec: kopf.Spec, **_: Any) -> None:
            self._pool(spec["pool"])

    def _tell(self, name: str, body: Mapping[str, Any] | None) -> bool:
        """Whether what matters here has changed: a kubelet writes its Node all the time. kopf has called the index before."""
        with self._lock:
            before = self._told.pop(name, None)
            if body is None:
                self._nodes.pop(name, None)
            else:
                self._nodes[name] = self._told[name] = cluster_node(body)
            return self._told.get(name) != before

    def _pool(self, name: str) -> None:
        with self._lock:
            self._pools.add(name)
        self._due.add(name)
