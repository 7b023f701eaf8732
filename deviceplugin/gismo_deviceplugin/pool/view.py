"""What the API says about one pool, as far as a node has to know: frozen, and read from plain objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gismo_deviceplugin.pool.dax.region import Match
from gismo_deviceplugin.pool.label import State

# A quantity of Kubernetes in bytes.
Quantity = Callable[[Any], int]


@dataclass(frozen=True, slots=True)
class RangeView:
    """A GismoNamespace."""

    namespace: str
    store_uuid: str
    offset_bytes: int
    size_bytes: int
    coherence: str  # as gismo_core has it
    shares_per_node: int = 64
    runtime_injection: str = "UserSite"
    kubernetes_namespaces: frozenset[str] = frozenset()
    state: State = State.ACTIVE
    layout_version: int = 0


@dataclass(frozen=True, slots=True)
class NodeView:
    """A GismoNode: what the operator decided of it, and what its agent said."""

    node: str
    host_id: int
    incarnation: int = 1
    writer: bool = False
    standing: str = "Active"
    layout_version: int = 0
    boot_id: str | None = None  # said by its agent, like what follows
    nonce: str | None = None
    reached: int | None = None  # layout
    released: frozenset[str] = frozenset()
    strangers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Emulated:
    """Where the memory of an emulated pool is."""

    directory: Path
    capacity_bytes: int


# Where a pool's memory is: a directory, or the CXL region that fits.
Source = Emulated | Match


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool, seen from one node."""

    pool: str
    source: Source
    me: NodeView
    others: tuple[NodeView, ...] = ()
    ranges: tuple[RangeView, ...] = field(default=())


def of_range(one: Mapping[str, Any]) -> RangeView:
    """From a GismoNamespace."""
    spec = one["spec"]
    return RangeView(
        namespace=spec["namespace"],
        store_uuid=spec["storeUUID"],
        offset_bytes=spec["offsetBytes"],
        size_bytes=spec["sizeBytes"],
        coherence=spec["coherence"].lower(),
        shares_per_node=spec["sharesPerNode"],
        runtime_injection=spec["runtimeInjection"],
        kubernetes_namespaces=frozenset(spec["access"]["kubernetesNamespaces"]),
        state=State(spec["state"]),
        layout_version=spec.get("layoutVersion", 0),
    )


# How far that has come in the stores is for people: what an agent may do goes by what the cluster thinks of the node.
_STANDING = {"Fenced": "Suspect", "Released": "Dead"}


def of_node(one: Mapping[str, Any]) -> NodeView:
    """From a GismoNode."""
    spec, status = one["spec"], one.get("status") or {}
    return NodeView(
        node=spec["node"],
        host_id=spec["hostId"],
        incarnation=spec["incarnation"],
        writer=spec["writer"],
        standing=_STANDING.get(spec["standing"], spec["standing"]),
        layout_version=spec["layoutVersion"],
        boot_id=status.get("bootId"),
        nonce=status.get("nonce"),
        reached=status.get("layoutVersion"),
        released=frozenset(status.get("released") or ()),
        strangers=frozenset(status.get("strangers") or ()),
    )


def of_source(source: Mapping[str, Any], quantity: Quantity) -> Source:
    """From spec.source."""
    emulated = source.get("emulated")
    if emulated:
        return Emulated(Path(emulated["directory"]), quantity(emulated["capacity"]))
    match = source["dax"]["match"]
    return Match(
        size_bytes=quantity(match["size"]) if "size" in match else None,
        serial=match.get("serial"),
        region=match.get("region"),
        uuid=match.get("uuid"),
    )


def of_pool(
    node: str, nodes: Iterable[Mapping[str, Any]], ranges: Iterable[Mapping[str, Any]], quantity: Quantity
) -> dict[str, PoolView]:
    """By name, the pools that a node has a part in."""
    nodes, ranges = list(nodes), list(ranges)
    found = {}
    for mine in nodes:
        if mine["spec"]["node"] != node:
            continue
        pool = mine["spec"]["pool"]
        found[pool] = PoolView(
            pool=pool,
            source=of_source(mine["spec"]["source"], quantity),
            me=of_node(mine),
            others=tuple(of_node(one) for one in nodes if one["spec"]["pool"] == pool and one["spec"]["node"] != node),
            ranges=tuple(of_range(one) for one in ranges if one["spec"]["pool"] == pool),
        )
    return found
