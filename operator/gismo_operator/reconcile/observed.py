"""What was seen of one pool when a decision is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gismo_operator.api.v1alpha1 import GismoNamespace, GismoNode, GismoPool


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A Node of Kubernetes."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    boot_id: str = ""
    ready: bool = True  # its kubelet says so, and lately
    out_of_service: bool = False  # the taint node.kubernetes.io/out-of-service: somebody knows that it is off
    has_agent: bool = True  # an agent of ours has written its annotation


@dataclass(frozen=True, slots=True)
class Observed:
    """All that a decision about one pool may depend on."""

    pool: str
    wanted: GismoPool | None  # None: the pool is gone, and its ranges are to be released
    namespaces: tuple[GismoNamespace, ...] = ()
    nodes: tuple[GismoNode, ...] = ()
    cluster: tuple[ClusterNode, ...] = ()
    # Gismo namespaces that have been given up for so long that every share that was given is seen.
    shares_seen: frozenset[str] = frozenset()
    # Those that may be made anew, should the pool label have refused their range.
    may_be_anew: frozenset[str] = frozenset()
