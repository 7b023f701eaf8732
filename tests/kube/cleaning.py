"""Taking away what a test made on an API server."""

from __future__ import annotations

from typing import Any


def remove_all(*resources: Any) -> None:
    """All objects of these cluster-scoped resources, finalizers or not."""
    from kubernetes.dynamic.exceptions import NotFoundError

    for resource in resources:
        for one in resource.get().items:
            body = {"metadata": {"finalizers": None}}
            try:
                resource.patch(name=one.metadata.name, body=body, content_type="application/merge-patch+json")
                resource.delete(name=one.metadata.name)
            except NotFoundError:
                continue
