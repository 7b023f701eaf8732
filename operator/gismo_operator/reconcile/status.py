"""What is said of a pool and of its Gismo namespaces: what was observed, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gismo_operator.api import quantity
from gismo_operator.api.v1alpha1 import Failure, GismoNode, RangeSpec, RangeState, Standing
from gismo_operator.conditions import DEGRADED, IN_USE, NOT_LOADED, PROGRESSING, READY, Said, listed
from gismo_operator.reconcile import hosts, ranges, tenants
from gismo_operator.reconcile.observed import Observed

# Of an agent's failures: those that will not mend themselves, the gravest first.
_GRAVE = (
    "NotTheSameMemory",
    "LayoutConflict",
    "PoolsOverlap",
    "StoreLost",
    "OnlinedAsRAM",
    "HoldsOtherData",
    "RegionMissing",
    "RegionAmbiguous",
    "RegionUnfit",
    "OnlinePolicy",
    "CheckpointUnreadable",
    "NewerLayout",
)


@dataclass(frozen=True, slots=True)
class PoolSaid:
    """The status of a pool, less what the writer adds (times, generation)."""

    conditions: tuple[Said, ...]
    capacity: str | None
    allocated: str | None
    free: str | None
    largest_free: str | None
    namespaces_ready: str
    nodes_ready: str


@dataclass(frozen=True, slots=True)
class NamespaceSaid:
    """The status of a Gismo namespace."""

    conditions: tuple[Said, ...]
    nodes_ready: str


def of_pool(observed: Observed, decided: tenants.Tenants, found: hosts.Hosts, layout_version: int) -> PoolSaid:
    """For the pool's status."""
    nodes = _expected(observed, found)
    reached = [node for node in nodes if _is_ready(node, layout_version)]
    active = [spec for spec in decided.specs.values() if spec.state is RangeState.ACTIVE]
    asked = observed.wanted.spec.namespaces if observed.wanted is not None else []
    ready = [spec for spec in active if _ready_on(spec, nodes, layout_version) == len(nodes) and nodes]
    sizes = _sizes(decided)
    return PoolSaid(
        conditions=(
            _ready(observed, decided, found, nodes, reached, len(ready) == len(asked)),
            _progressing(observed, decided, found, nodes, reached),
            _degraded(observed, decided, found),
        ),
        **sizes,
        namespaces_ready=f"{len(ready)}/{len(asked)}",
        nodes_ready=f"{len(reached)}/{len(nodes)}",
    )


def of_namespaces(
    observed: Observed, decided: tenants.Tenants, found: hosts.Hosts, layout_version: int
) -> dict[str, NamespaceSaid]:
    """For the status of each Gismo namespace, by name."""
    nodes = _expected(observed, found)
    users = tenants.in_use(observed)
    said = {}
    for name, spec in decided.specs.items():
        count = _ready_on(spec, nodes, layout_version)
        failures = [failure for node in nodes for failure in node.status.failures if failure.namespace in (name, "")]
        if spec.state is not RangeState.ACTIVE:
            ready = _given_back(spec, users.get(name, ()))
        elif nodes and count == len(nodes):
            ready = Said(READY, True, "Ready", f"on all of its {len(nodes)} nodes")
        elif failures:
            ready = Said(READY, False, failures[0].reason, failures[0].message)
        else:
            ready = Said(READY, False, "NodesNotReady", f"ready on {count} of {len(nodes)} nodes")
        holders = users.get(name, ())
        in_use = (
            Said(IN_USE, True, "InUse", f"by {listed(holders, 8)}")
            if holders
            else Said(IN_USE, False, "NotInUse", "no pod has a share, and no process has the store open")
        )
        conditions = (ready, in_use, _not_loaded(name, observed.nodes))
        said[name] = NamespaceSaid(conditions, f"{count}/{len(nodes)}")
    return said


def _not_loaded(name: str, nodes: Sequence[GismoNode]) -> Said:
    """Does a container hold a share and run Ray without Gismo?"""
    found = [(node.spec.node, one) for node in nodes for one in node.status.not_loaded if one.namespace == name]
    if not found:
        return Said(NOT_LOADED, False, "AsExpected", "no container with a share was seen that runs Ray without Gismo")
    (node, first), more = found[0], len(found) - 1
    also = f" (and {more} more: `kubectl get gnode -o yaml`)" if more else ""
    return Said(NOT_LOADED, True, first.reason, f"on {node}: {first.message}{also}")


def _expected(observed: Observed, found: hosts.Hosts) -> list[GismoNode]:
    """The nodes that have to be ready: those asked for, unless they are down."""
    there = {node.spec.node: node for node in observed.nodes}
    names = [node.name for node in hosts.selected(observed)]
    return [
        there[name]
        for name in names
        if name in there and name in found.specs and found.specs[name].standing is Standing.ACTIVE
    ]


def _is_ready(node: GismoNode, layout_version: int) -> bool:
    return node.status.layout_version == layout_version and not node.status.failures


def _ready_on(spec: RangeSpec, nodes: Sequence[GismoNode], layout_version: int) -> int:
    """On how many of the nodes it is ready."""
    return sum(
        node.status.layout_version == layout_version
        and not any(failure.namespace in (spec.namespace, "") for failure in node.status.failures)
        for node in nodes
    )


def _sizes(decided: tenants.Tenants) -> dict[str, str | None]:
    if decided.usable is None:
        return {"capacity": None, "allocated": None, "free": None, "largest_free": None}
    stores = {spec.store_uuid for spec in decided.specs.values()}
    taken = [tenants.spec_range(spec) for spec in decided.specs.values()]
    taken += [one.where for one in decided.quarantined if one.store_uuid not in stores]
    allocated = sum(one.size_bytes for one in taken)
    return {
        "capacity": quantity.from_bytes(decided.usable.size_bytes),
        "allocated": quantity.from_bytes(allocated),
        "free": quantity.from_bytes(max(0, decided.usable.size_bytes - allocated)),
        "largest_free": quantity.from_bytes(ranges.largest_gap(taken, decided.usable)),
    }


def _ready(
    observed: Observed,
    decided: tenants.Tenants,
    found: hosts.Hosts,
    nodes: Sequence[GismoNode],
    reached: Sequence[GismoNode],
    is_complete: bool,
) -> Said:
    if not hosts.selected(observed):
        return Said(READY, False, "NoNodes", _no_nodes(observed))
    if decided.problems:
        return Said(READY, False, *_problem(decided))
    if len(reached) < len(nodes) or not nodes:
        behind = _behind(observed, found, reached)
        if not behind:
            return Said(READY, False, "NodesNotReady", "none of its nodes is up: see `kubectl get gnode,nodes`")
        why = [failure.message for node in nodes for failure in node.status.failures]
        more = f": {why[0]}" if why else ""
        return Said(
            READY,
            False,
            "NodesNotReady",
            f"{len(reached)} of {len(reached) + len(behind)} nodes; not {listed(behind)}{more}",
        )
    if not is_complete:
        return Said(READY, False, "NamespacesNotReady", "a namespace of the list is not ready everywhere yet")
    return Said(READY, True, "Ready", f"on {len(nodes)} nodes")


def _no_nodes(observed: Observed) -> str:
    asked = observed.wanted.spec.node_selector if observed.wanted is not None else {}
    if not any(node.has_agent for node in observed.cluster):
        return "no node has an agent: see `kubectl get daemonset`, and agent.nodeSelector and agent.tolerations of the chart"
    labels = ",".join(f"{name}={value}" for name, value in sorted(asked.items()))
    return (
        f"no node with an agent has the labels of spec.nodeSelector: `kubectl get nodes -l {labels}` says which have them; label "
        "nodes so, or let agents run on those (agent.nodeSelector and agent.tolerations of the chart)"
    )


def _behind(observed: Observed, found: hosts.Hosts, reached: Sequence[GismoNode]) -> list[str]:
    """The nodes that have to get ready, those that have no GismoNode yet among them."""
    there = {node.spec.node for node in reached}
    names = [node.name for node in hosts.selected(observed) if node.name not in there]
    return [name for name in names if name in found.specs and found.specs[name].standing is Standing.ACTIVE]


def _progressing(
    observed: Observed,
    decided: tenants.Tenants,
    found: hosts.Hosts,
    nodes: Sequence[GismoNode],
    reached: Sequence[GismoNode],
) -> Said:
    if decided.waiting:
        text = "; ".join(f"{name} is in use by {listed(holders)}" for name, holders in decided.waiting.items())
        return Said(PROGRESSING, True, "WaitingForUse", text)
    if decided.quarantined:
        return Said(PROGRESSING, True, "Quarantined", "; ".join(map(_quarantined, decided.quarantined)))
    given_up = (RangeState.RELEASING, RangeState.QUARANTINED)
    releasing = [name for name, spec in decided.specs.items() if spec.state in given_up]
    if releasing:
        return Said(PROGRESSING, True, "Zeroing", f"{listed(releasing)} before the bytes are given to anybody else")
    failing = {node.spec.node for node in nodes if node.status.failures}
    behind = [name for name in _behind(observed, found, reached) if name not in failing]
    if behind:
        return Said(PROGRESSING, True, "Carving", f"on {listed(behind)}")
    return Said(PROGRESSING, False, "Stable", "nothing is under way")


def _quarantined(one: tenants.Quarantined) -> str:
    size = quantity.from_bytes(one.where.size_bytes)
    until = listed(one.holders, 8) or "nobody who is known: every node has to say that it does not use them"
    return f"{size} that were {one.namespace}'s are nobody else's as long as they are used by {until}"


def _degraded(observed: Observed, decided: tenants.Tenants, found: hosts.Hosts) -> Said:
    if decided.problems:
        return Said(DEGRADED, True, *_problem(decided))
    if found.without_id:
        return Said(
            DEGRADED,
            True,
            "TooManyHosts",
            f"a pool has 64 host ids, and there is none left for {listed(found.without_id)}",
        )
    grave: Mapping[str, tuple[str, Failure]] = {
        failure.reason: (node.spec.node, failure)
        for node in reversed(observed.nodes)
        for failure in node.status.failures
        if failure.reason in _GRAVE
    }
    for reason in _GRAVE:
        if reason in grave:
            node, failure = grave[reason]
            return Said(DEGRADED, True, reason, f"{node}: {failure.message}")
    return Said(DEGRADED, False, "AsExpected", "nothing that will not mend itself")


def _problem(decided: tenants.Tenants) -> tuple[str, str]:
    """Reason and message of all that is asked for and cannot be."""
    texts = [f"{name}: {text}" if name else text for name, text in decided.problems.items()]
    return "LayoutConflict" if "" in decided.problems else "DoesNotFit", "; ".join(texts)


def _given_back(spec: RangeSpec, holders: Sequence[str]) -> Said:
    """Ready, of a range that is not Active."""
    if spec.state is RangeState.RETAINED:
        text = "taken out of the pool's list; range and data are kept for the same name; `kubectl delete gns` ends that"
    elif spec.state is RangeState.QUARANTINED:
        who = f"used by {listed(holders, 8)}" if holders else "not known to be unused on every node"
        text = (
            f"given up by force while it is {who}: this object goes, and the name is free; its bytes are nobody else's before the "
            "last user has ended"
        )
    else:
        text = "taken out of the pool's list; zeroed when nobody uses it any more, then this object goes"
    return Said(READY, False, spec.state.value, text)
