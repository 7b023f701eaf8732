"""Pools, ranges and nodes for tests, with as little as a test cares for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gismo_operator.api.v1alpha1 import GismoNamespace, GismoNode, GismoPool, NodeSpec, RangeSpec, Source
from gismo_operator.reconcile.observed import ClusterNode, Observed

POOL = "rack1"
SOURCE = Source.model_validate({"emulated": {"capacity": "1Gi"}})


def pool(
    *namespaces: Mapping[str, Any],
    capacity: str = "1Gi",
    annotations: Mapping[str, str] | None = None,
    directory: str = "/var/lib/gismo/emulated",
    **spec: Any,
) -> GismoPool:
    """An emulated pool."""
    return GismoPool.model_validate(
        {
            "metadata": {"name": POOL, "uid": "uid-1", "annotations": dict(annotations or {})},
            "spec": {
                "source": {"emulated": {"capacity": capacity, "directory": directory}},
                "namespaces": list(namespaces),
                **spec,
            },
        }
    )


def tenant(name: str, size: str = "64Mi", **more: Any) -> dict[str, Any]:
    """An entry of spec.namespaces."""
    return {"name": name, "size": size, **more}


def stored(
    specs: Iterable[RangeSpec], deleted: Iterable[str] = (), annotations: Mapping[str, str] | None = None
) -> tuple[GismoNamespace, ...]:
    """Those objects, as the API server would give them."""
    gone = set(deleted)
    return tuple(
        GismoNamespace.model_validate(
            {
                "metadata": {
                    "name": f"{spec.pool}.{spec.namespace}",
                    "annotations": dict(annotations or {}),
                    "deletionTimestamp": "2026-01-01T00:00:00Z" if spec.namespace in gone else None,
                },
                "spec": spec.model_dump(by_alias=True, mode="json"),
            }
        )
        for spec in specs
    )


def nodes(specs: Iterable[NodeSpec], **status: Mapping[str, Any]) -> tuple[GismoNode, ...]:
    """GismoNodes with the status of each, by node."""
    return tuple(
        GismoNode.model_validate(
            {
                "metadata": {"name": f"{spec.pool}.{spec.node}"},
                "spec": spec.model_dump(by_alias=True, mode="json"),
                "status": dict(status.get(spec.node.replace("-", "_"), {})),
            }
        )
        for spec in specs
    )


def observed(wanted: GismoPool | None, **more: Any) -> Observed:
    """Of POOL."""
    return Observed(pool=POOL, wanted=wanted, **more)


def cluster(*names: str, **more: Any) -> tuple[ClusterNode, ...]:
    """Nodes that are well."""
    return tuple(ClusterNode(name, **more) for name in names)
