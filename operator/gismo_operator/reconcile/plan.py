"""One decision about one pool: from all that was seen to all that is to be. Made anew from the whole each time.

What changes the layout (a range, its state or its settings, a host id) makes `layoutVersion` grow by one; agents work
towards a version, and say which they have reached. So what agents say can be told apart from what they said before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gismo_operator.api.v1alpha1 import NodeSpec, RangeSpec
from gismo_operator.reconcile import hosts, status, tenants
from gismo_operator.reconcile.observed import Observed
from gismo_operator.reconcile.status import NamespaceSaid, PoolSaid


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be."""

    layout_version: int
    ranges: Mapping[str, RangeSpec]  # by Gismo namespace
    released: frozenset[str]  # Gismo namespaces whose objects lose their finalizer, and go
    nodes: Mapping[str, NodeSpec]  # by node
    pool: PoolSaid
    namespaces: Mapping[str, NamespaceSaid]


def decide(observed: Observed) -> Plan:
    """The plan. The same for the same observation; applied, it leads to one that changes nothing."""
    before = {one.spec.namespace: one.spec for one in observed.namespaces}
    nodes_before = {node.spec.node: node.spec for node in observed.nodes}
    said = observed.wanted.status.layout_version if observed.wanted is not None else None
    # Of the ranges too: who wrote them may have died before the nodes got the new version, and then nobody would be told.
    told = [spec.layout_version for spec in nodes_before.values()]
    version = max([said or 0, *told, *(spec.layout_version for spec in before.values())])
    # A node has seen a newer one: the objects were lost, or are of an old copy of etcd. The label takes nothing older than that.
    proven = [node for node in observed.nodes if all(one.reason != "NotTheSameMemory" for one in node.status.failures)]
    seen = max((node.status.layout_version or 0 for node in proven), default=0)
    if seen > version:
        version = seen + 1
    decided = tenants.decide(observed, version + 1)
    found = hosts.decide(observed)
    is_other = before != dict(decided.specs) or _layout(nodes_before) != _layout(found.specs)
    if is_other:
        version += 1
    specs = {name: spec.model_copy(update={"layout_version": version}) for name, spec in found.specs.items()}
    return Plan(
        layout_version=version,
        ranges=decided.specs,
        released=decided.released,
        nodes=specs,
        pool=status.of_pool(observed, decided, found, version),
        namespaces=status.of_namespaces(observed, decided, found, version),
    )


def _layout(specs: Mapping[str, NodeSpec]) -> dict[str, object]:
    """What of the nodes agents have to know."""
    return {
        name: (spec.host_id, spec.incarnation, spec.writer, spec.standing.in_cluster, spec.source)
        for name, spec in specs.items()
    }
