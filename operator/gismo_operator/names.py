"""Names of objects, and words that the parts of Gismo on Kubernetes have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

FINALIZER = "gismo.io/range"
_LONGEST = 253
_HASH = 16


def range_object(pool: str, namespace: str) -> str:
    """The name of a GismoNamespace; pool and namespace have no dots, so it can be taken apart again."""
    return f"{pool}.{namespace}"


def node_object(pool: str, node: str) -> str:
    """The name of a GismoNode; hashed where it would be too long for Kubernetes."""
    name = f"{pool}.{node}"
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - _HASH - 1]}-{hashlib.sha256(name.encode()).hexdigest()[:_HASH]}"


def others_finalizers(there: Iterable[str]) -> list[str]:
    """What is left of an object's finalizers when ours goes."""
    return [name for name in there if name != FINALIZER]
