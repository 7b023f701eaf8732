"""The API server, for an agent: what there is of all pools, kept up to date by kopf, and the status of its own GismoNodes.

kopf is an informer here (gismo_kube.informer). Being late costs only time: what an agent must not do by a stale view, the pool label refuses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import kopf

from gismo_deviceplugin.kubelet.shares import GROUP
from gismo_kube.connection import dynamic_client

VERSION = "v1alpha1"
MANAGER = "gismo-agent"
REGIONS_ANNOTATION = f"{GROUP}/regions"
FOLLOWED = ("gismonodes", "gismonamespaces")
_REQUEST_S = 5.0


class Cluster:
    """All GismoNodes and GismoNamespaces, and one's own words about some of them."""

    def __init__(self, api: Any, changed: Callable[[], object]) -> None:
        client = dynamic_client(api)
        self._statuses = client.resources.get(api_version=f"{GROUP}/{VERSION}", kind="GismoNode").status
        self._cluster = client.resources.get(api_version="v1", kind="Node")
        self._changed = changed
        self._lock = threading.Lock()
        self.synced = False  # all that was there at the start is known
        self._objects: dict[str, dict[str, dict[str, Any]]] = {plural: {} for plural in FOLLOWED}

    def objects(self, plural: str) -> list[dict[str, Any]]:
        """As of the last events."""
        with self._lock:
            return list(self._objects[plural].values())

    def say_regions(self, node: str, regions: str) -> None:
        """Into the annotation of the Node: that there is an agent, and what memory it found."""
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node, "annotations": {REGIONS_ANNOTATION: regions}},
        }
        self._cluster.server_side_apply(
            body=body, name=node, field_manager=MANAGER, force_conflicts=True, _request_timeout=_REQUEST_S
        )

    def say(self, name: str, status: Mapping[str, Any]) -> None:
        """The status of a GismoNode of this node."""
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "GismoNode", "metadata": {"name": name}, "status": status}
        self._statuses.server_side_apply(
            body=body, name=name, field_manager=MANAGER, force_conflicts=True, _request_timeout=_REQUEST_S
        )

    def register(self, registry: kopf.OperatorRegistry) -> None:
        """The handlers."""
        for plural in self._objects:
            self._follow(plural, registry)

    def _follow(self, plural: str, registry: kopf.OperatorRegistry) -> None:
        @kopf.index(GROUP, VERSION, plural, registry=registry, id=f"known-{plural}")
        def known(name: str, body: kopf.Body, **_: Any) -> None:
            with self._lock:
                self._objects[plural][name] = dict(body)

        @kopf.on.event(GROUP, VERSION, plural, registry=registry, id=f"event-{plural}")
        def event(name: str, body: kopf.Body, type: str | None, **_: Any) -> None:  # noqa: A002  (kopf's name)
            with self._lock:
                if type == "DELETED":
                    self._objects[plural].pop(name, None)
                else:
                    self._objects[plural][name] = dict(body)
                self.synced = True  # kopf tells no event before its indices are filled
            self._changed()


def now() -> str:
    """RFC 3339, to the second, as conditions have it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
