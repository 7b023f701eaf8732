"""Which nodes a pool has, with which host id, how they stand, and which of them writes.

A host id is a lane in every store of the pool: what a node wrote under it must be released by the store before another
node may have it. So an id is never taken back here; a node that leaves keeps its GismoNode. (Taking back comes with
fencing in the store.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gismo_operator.api.v1alpha1 import MAX_HOSTS, NodeSpec, Standing
from gismo_operator.reconcile.observed import ClusterNode, Observed

CONFIRMED_DEAD = "gismo.io/confirmed-dead"  # on a pool: host ids, with commas


@dataclass(frozen=True, slots=True)
class Hosts:
    """What decide() decided. layoutVersion is not yet set."""

    specs: Mapping[str, NodeSpec]  # by node
    without_id: tuple[str, ...]  # nodes for which there is no host id left


def selected(observed: Observed) -> list[ClusterNode]:
    """The nodes that the pool asks for and that have an agent."""
    if observed.wanted is None:
        return []
    selector = observed.wanted.spec.node_selector.items()
    return [node for node in observed.cluster if node.has_agent and selector <= dict(node.labels).items()]


def decide(observed: Observed) -> Hosts:
    """The spec of each GismoNode that is to be."""
    there = {node.spec.node: node for node in observed.nodes}
    cluster = {node.name: node for node in observed.cluster}
    confirmed = _confirmed_dead(observed)
    used = {node.spec.host_id for node in observed.nodes}
    source = observed.wanted.spec.source if observed.wanted is not None else None
    specs: dict[str, NodeSpec] = {}
    for name, node in there.items():
        standing = _standing(node.spec, cluster.get(name), node.status.boot_id, confirmed)
        specs[name] = node.spec.model_copy(update={"standing": standing})
    without_id = []
    for one in sorted(selected(observed), key=lambda node: node.name):
        if one.name in specs or source is None:
            continue
        free = next((number for number in range(MAX_HOSTS) if number not in used), None)
        if free is None:
            without_id.append(one.name)
            continue
        used.add(free)
        specs[one.name] = NodeSpec(pool=observed.pool, node=one.name, source=source, host_id=free, layout_version=0)
    writer = _writer(specs, wanted=[node.name for node in selected(observed)])
    return Hosts(
        {name: spec.model_copy(update={"writer": name == writer}) for name, spec in specs.items()}, tuple(without_id)
    )


def _standing(
    spec: NodeSpec, node: ClusterNode | None, seen_boot_id: str | None, confirmed: frozenset[int]
) -> Standing:
    """Dead only by proof; else nothing of it is ever reused. Dead is for ever for that boot of the node."""
    if spec.host_id in confirmed or (node is not None and node.out_of_service):
        return Standing.DEAD
    if node is not None and seen_boot_id and node.boot_id and node.boot_id != seen_boot_id:
        # It has booted anew: what it held is void. Its agent says so itself as soon as it is up, and is Active then.
        return Standing.DEAD
    if node is None or not node.ready:
        return Standing.SUSPECT if spec.standing is not Standing.DEAD else Standing.DEAD
    return Standing.ACTIVE


def _writer(specs: Mapping[str, NodeSpec], wanted: Iterable[str]) -> str | None:
    """The one that is, for as long as it is not dead: two writers at a time would be worse than none."""
    for name, spec in specs.items():
        if spec.writer and spec.standing is not Standing.DEAD:
            return name
    active = [spec for spec in specs.values() if spec.standing is Standing.ACTIVE]
    asked_for = set(wanted)
    # Where none is asked for any more, as of a pool that is gone, somebody has to zero what it leaves.
    fit = [spec for spec in active if spec.node in asked_for] or active
    return min(fit, key=lambda spec: spec.host_id).node if fit else None


def _confirmed_dead(observed: Observed) -> frozenset[int]:
    if observed.wanted is None:
        return frozenset()
    text = observed.wanted.metadata.annotations.get(CONFIRMED_DEAD, "")
    return frozenset(int(part) for part in text.split(",") if part.strip().isdecimal())
