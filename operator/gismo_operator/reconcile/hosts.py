"""Which nodes a pool has, with which host id, how they stand, and which of them writes.

A host id is a lane in every store of the pool: what a node wrote under it must be released by the store before another
node may have it. So an id is never taken back here; a node that leaves keeps its GismoNode. How far a node that is Suspect or
Dead is taken out of the stores (Fenced, Released) its neighbours' agents say: pool/lanes.py of the device plugin.

A GismoNode that is carried out late, or a pool that was made anew, may give a node an id that another has. The pool label
decides whose it is; who finds it taken there has not joined, says so, and gets the next one.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from gismo_operator.api.v1alpha1 import MAX_HOSTS, GismoNode, NodeSpec, Source, Standing
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


def is_elsewhere(observed: Observed) -> bool:
    """Are the nodes at the memory of a pool before this one, which had its name?"""
    return observed.wanted is not None and any(
        not _is_same(node.spec.source, observed.wanted.spec.source) for node in observed.nodes
    )


def _is_same(one: Source, other: Source) -> bool:
    """The same bytes? How many of an emulated memory are used is a figure of the pool alone."""
    if one.emulated is not None and other.emulated is not None:
        return one.emulated.directory == other.emulated.directory
    return one == other


def decide(observed: Observed) -> Hosts:
    """The spec of each GismoNode that is to be."""
    there = {node.spec.node: node for node in observed.nodes}
    cluster = {node.name: node for node in observed.cluster}
    confirmed = _confirmed_dead(observed)
    taken = {node.status.taken_host_id for node in observed.nodes if node.status.taken_host_id is not None}
    used = {node.spec.host_id for node in observed.nodes} | taken
    source = observed.wanted.spec.source if observed.wanted is not None else None
    # A pool that was made anew under its name may have other memory. What is left of the ranges of the one before is in the old.
    moved = {"source": source} if source is not None and not (observed.namespaces and is_elsewhere(observed)) else {}
    specs: dict[str, NodeSpec] = {}
    for name, node in there.items():
        standing = _standing(node.spec, cluster.get(name), node.status.boot_id, confirmed)
        standing = _in_stores(standing, node, observed)
        specs[name] = node.spec.model_copy(update={"standing": standing, **moved})
    without_id = []
    for name, node in there.items():
        if node.status.taken_host_id != node.spec.host_id:
            continue
        # Upwards: the pool label may have more that are taken, of nodes that the API does not know.
        free = _free(used, node.spec.host_id + 1)
        if free is None:
            without_id.append(name)
            continue
        used.add(free)
        specs[name] = specs[name].model_copy(update={"host_id": free})
    for one in sorted(selected(observed), key=lambda node: node.name):
        if one.name in specs or source is None:
            continue
        free = _free(used, 0)
        if free is None:
            without_id.append(one.name)
            continue
        used.add(free)
        specs[one.name] = NodeSpec(pool=observed.pool, node=one.name, source=source, host_id=free, layout_version=0)
    # None is made as the writer: a creation is guarded by nothing but its name, and may be carried out when there is another. And
    # who is made anew here may have been it, and not know yet that its GismoNode was deleted: it is chosen among all.
    writer = _writer(specs, wanted=[node.name for node in selected(observed)], may_choose=specs.keys() == there.keys())
    return Hosts(
        {name: spec.model_copy(update={"writer": name == writer}) for name, spec in specs.items()}, tuple(without_id)
    )


def _free(used: Container[int], first: int) -> int | None:
    """An id that nobody has: from `first` upwards, and then from the beginning."""
    return next((one for number in range(MAX_HOSTS) if (one := (first + number) % MAX_HOSTS) not in used), None)


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
        return Standing.DEAD if spec.standing.is_dead else Standing.SUSPECT
    return Standing.ACTIVE


def _in_stores(standing: Standing, node: GismoNode, observed: Observed) -> Standing:
    """How far that has come in the stores, as an agent says that can see them."""
    said = [
        one
        for other in observed.nodes
        if other.spec.standing is Standing.ACTIVE
        for one in other.status.silent
        if (one.host_id, one.boot_id) == (node.spec.host_id, node.status.boot_id) and not one.active
    ]
    if standing is Standing.SUSPECT and any(one.fenced for one in said):
        return Standing.FENCED
    if standing is Standing.DEAD and any(one.standing is Standing.DEAD and not one.fenced for one in said):
        return Standing.RELEASED
    return standing


def _writer(specs: Mapping[str, NodeSpec], wanted: Iterable[str], *, may_choose: bool) -> str | None:
    """The one that is, for as long as it is not dead: two writers at a time would be worse than none."""
    for name, spec in specs.items():
        if spec.writer and not spec.standing.is_dead:
            return name
    if not may_choose:
        return None
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
