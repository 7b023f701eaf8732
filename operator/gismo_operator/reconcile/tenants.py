"""Which Gismo namespaces a pool has: what is asked for, against the ranges that there are.

The life of a range: Active (pods may have shares) → Retained (taken out of the list, its data kept for the same name) or
Releasing (nothing new is given out; zeroed when nobody uses it; then it goes, and its bytes are free). Back to Active
only from Retained: a range that is being released may be half zeroed. By force: Releasing → Quarantined; its object goes as soon as
the pool label keeps its bytes from use, and they are free when the label has them no more.

What the label refused goes at once, and is made anew at another place; later each time where that is refused too.
A pool that was made anew under its name may have other memory: as long as ranges of the one before are left in the old memory,
nothing is given out, neither there nor in the new. Nor before the GismoNodes have the new memory, or its new capacity.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gismo_operator.api import quantity
from gismo_operator.api.v1alpha1 import (
    Coherence,
    GismoNamespace,
    GismoPool,
    NamespaceSpec,
    NodeStatus,
    QuarantinedRange,
    RangeAccess,
    RangeSpec,
    RangeState,
    ReclaimPolicy,
)
from gismo_operator.reconcile import hosts, ranges
from gismo_operator.reconcile.observed import Observed
from gismo_operator.reconcile.ranges import Range

LABEL_BYTES = 2 * quantity.MIB  # at either end
# On a pool: names of Gismo namespaces, with commas. On a GismoNamespace: with any value.
FORCE_DELETE = "gismo.io/force-delete"
_GIVEN_UP = (RangeState.RELEASING, RangeState.QUARANTINED)


@dataclass(frozen=True, slots=True)
class Tenants:
    """What decide() decided."""

    specs: Mapping[str, RangeSpec]  # by name; those that are to be
    released: frozenset[str]  # those whose bytes nobody has any more: their objects go
    waiting: Mapping[str, tuple[str, ...]]  # Releasing, and still in use: by whom
    problems: Mapping[str, str]  # why what is asked for cannot be
    usable: Range | None  # None: not known yet
    quarantined: tuple[Quarantined, ...]  # bytes that are kept from use


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A range that was given up by force. Its object may have gone."""

    namespace: str
    store_uuid: str
    where: Range
    holders: tuple[str, ...]  # none: nobody, or a node that may use it does not answer


def decide(observed: Observed, layout_version: int) -> Tenants:
    """The range of each Gismo namespace. layout_version: of the layout that this would become."""
    there = {one.spec.namespace: one for one in observed.namespaces}
    asked = {one.name: one for one in observed.wanted.spec.namespaces} if observed.wanted is not None else {}
    users = in_use(observed)
    not_taken = refused(observed)
    quarantined = _quarantined(observed)
    is_elsewhere = hosts.is_elsewhere(observed)
    problems: dict[str, str] = {}
    if is_elsewhere and there:
        problems = dict.fromkeys(asked, _left_elsewhere(observed.pool, there.values()))
        asked = {}
    specs: dict[str, RangeSpec] = {}
    for name, one in there.items():
        spec = _kept(one, asked.get(name), observed.wanted, is_elsewhere=is_elsewhere)
        next_spec = _next(
            one,
            spec,
            observed,
            is_refused=name in not_taken,
            is_used=name in users,
            is_quarantined=any(each.store_uuid == spec.store_uuid for each in quarantined),
        )
        if next_spec is None:
            continue
        if next_spec != one.spec:
            next_spec = next_spec.model_copy(update={"layout_version": layout_version})
        specs[name] = next_spec
        problem = _problem(next_spec, asked.get(name), is_refused=name in not_taken)
        if problem is not None:
            problems[name] = problem
    released = frozenset(there.keys() - specs.keys())
    waiting = {name: users[name] for name, one in specs.items() if one.state is RangeState.RELEASING and name in users}
    usable = _usable(observed)
    if observed.wanted is not None and usable is not None:
        # What is released now is not free before its object has gone: until then there would be two ranges on the same bytes.
        taken = {name: spec_range(specs.get(name, one.spec)) for name, one in there.items()}
        taken |= {f"{one.namespace} ({one.store_uuid})": one.where for one in quarantined}  # no name has a blank
        new = [one for name, one in asked.items() if name not in there]
        if any(node.spec.source != observed.wanted.spec.source for node in observed.nodes):
            new = []  # the agents have to know the memory first, or its other capacity
        placed = ranges.place(taken, [(one.name, quantity.to_bytes(one.size)) for one in new], usable)
        for each in new:
            if each.name not in placed.without_room:
                specs[each.name] = _new(observed.wanted, each, placed.ranges[each.name], layout_version)
            elif not released:  # else: when they have gone is time to say so
                retained = [name for name, spec in specs.items() if spec.state is RangeState.RETAINED]
                largest = ranges.largest_gap(placed.ranges.values(), usable)
                problems[each.name] = _no_room(observed.pool, each, largest, retained)
        for text in ranges.conflicts({name: spec_range(one) for name, one in specs.items()}, usable):
            problems[""] = text
    return Tenants(specs, released, waiting, problems, usable, quarantined)


def _next(
    one: GismoNamespace,
    spec: RangeSpec,
    observed: Observed,
    *,
    is_refused: bool,
    is_used: bool,
    is_quarantined: bool,
) -> RangeSpec | None:
    """What becomes of a range that there is, which `spec` would be if nobody used it; None: nobody has its bytes any more."""
    name = spec.namespace
    was_given_up = one.spec.state in _GIVEN_UP
    if is_refused and (was_given_up or name in observed.may_be_anew):
        return None  # for ever refused: nobody has ever had a byte of it, and nobody will
    if spec.state not in _GIVEN_UP:
        return spec
    is_known = was_given_up and name in observed.shares_seen
    if is_known and not is_used and _is_zeroed(observed, spec.store_uuid):
        return None
    if spec.state is RangeState.QUARANTINED:
        return None if is_quarantined else spec
    if is_known and spec.force:
        return spec.model_copy(update={"state": RangeState.QUARANTINED})
    return spec


def _problem(spec: RangeSpec, asked: NamespaceSpec | None, *, is_refused: bool) -> str | None:
    """Why a range that there is is not as it is asked for."""
    if asked is not None and quantity.to_bytes(asked.size) != spec.size_bytes:
        return (
            f"its range has {quantity.from_bytes(spec.size_bytes)}, not {asked.size}: write the size that it has, or "
            f"`kubectl delete gns {spec.pool}.{spec.namespace}` to lose its data"
        )
    if is_refused:
        return (
            "its range is refused again and again by the pool label, which knows of something there that the API does not: it is "
            "made anew from time to time; see `kubectl get gnode` and the log of the agent of the writer node"
        )
    return None


def _no_room(pool: str, asked: NamespaceSpec, largest_bytes: int, retained: Sequence[str]) -> str:
    more = f", or `kubectl delete gns {pool}.{retained[0]}` to lose what is retained" if retained else ""
    return (
        f"there is no gap of {quantity.from_bytes(quantity.to_bytes(asked.size))}: the largest is "
        f"{quantity.from_bytes(largest_bytes)}; ranges never move, so remove a namespace, or ask for less{more}"
    )


def refused(observed: Observed) -> frozenset[str]:
    """Gismo namespaces whose range the pool label has not taken, and never takes."""
    stores = _writer_said(observed).refused
    return frozenset(one.spec.namespace for one in observed.namespaces if one.spec.store_uuid in stores)


def spec_range(spec: RangeSpec) -> Range:
    """Where it lies."""
    return Range(spec.offset_bytes, spec.size_bytes)


def in_use(observed: Observed) -> dict[str, tuple[str, ...]]:
    """Gismo namespaces that a pod or process uses, as the agents say: name → by whom. What the dead held is void."""
    found: dict[str, list[str]] = {}
    for node in observed.nodes:
        if node.spec.standing.is_dead:
            continue
        for use in node.status.in_use:
            found.setdefault(use.namespace, []).extend(f"{holder} on {node.spec.node}" for holder in use.holders)
    return {name: tuple(holders) for name, holders in found.items() if holders}


def _left_elsewhere(pool: str, left: Collection[GismoNamespace]) -> str:
    names = sorted(f"{pool}.{one.spec.namespace}" for one in left)
    kept = sorted(f"{pool}.{one.spec.namespace}" for one in left if one.spec.state not in _GIVEN_UP)
    how = f"; `kubectl delete gns {' '.join(kept)}` to lose their data, or make the pool with the memory that it had"
    return (
        f"a pool of this name with other memory was here before, and of it {', '.join(names)} is left: this one gets its memory when "
        f"that has gone{how if kept else ''}"
    )


def _usable(observed: Observed) -> Range | None:
    """The memory between the two ends of the pool label."""
    capacity: int | None = None
    if observed.wanted is not None and observed.wanted.spec.source.emulated is not None:
        capacity = quantity.to_bytes(observed.wanted.spec.source.emulated.capacity)
    else:
        seen = {node.status.capacity_bytes for node in observed.nodes if node.status.capacity_bytes is not None}
        capacity = min(seen) if seen else None
    return None if capacity is None else Range(LABEL_BYTES, capacity)


def _kept(
    one: GismoNamespace, wanted: NamespaceSpec | None, pool: GismoPool | None, *, is_elsewhere: bool
) -> RangeSpec:
    """A range that there is: in which state it is now, and with whose settings."""
    spec = one.spec.model_copy(update={"force": _is_forced(one, pool)})
    if spec.state is RangeState.QUARANTINED:
        return spec
    if one.metadata.deletion_timestamp is not None or spec.state is RangeState.RELEASING:
        return spec.model_copy(update={"state": RangeState.RELEASING})
    if is_elsewhere:
        return spec  # whoever made the pool anew may not know that it is there: nothing of it is lost before somebody says so
    if wanted is None or pool is None:
        gone = RangeState.RETAINED if spec.reclaim_policy is ReclaimPolicy.RETAIN else RangeState.RELEASING
        return spec.model_copy(update={"state": gone})
    return spec.model_copy(update={"state": RangeState.ACTIVE, **_settings(pool, wanted)})


def _settings(pool: GismoPool, wanted: NamespaceSpec) -> dict[str, object]:
    return {
        "shares_per_node": wanted.shares_per_node,
        "reclaim_policy": wanted.reclaim_policy,
        "access": _access(wanted),
        "runtime_injection": pool.spec.runtime_injection,
    }


def _access(wanted: NamespaceSpec) -> RangeAccess:
    return RangeAccess(kubernetes_namespaces=wanted.access.kubernetes_namespaces)


def _new(pool: GismoPool, wanted: NamespaceSpec, where: Range, layout_version: int) -> RangeSpec:
    # Not drawn by chance: a decision that is made twice, because its first writing failed, must be the same.
    decided = f"{wanted.name}:{layout_version}:{where.offset_bytes}+{where.size_bytes}"
    store = uuid.uuid5(uuid.NAMESPACE_URL, f"gismo:{pool.metadata.uid}:{decided}")
    return RangeSpec(
        pool=pool.metadata.name,
        namespace=wanted.name,
        offset_bytes=where.offset_bytes,
        size_bytes=where.size_bytes,
        store_uuid=str(store),
        coherence=pool.spec.coherence or Coherence.HARDWARE,
        shares_per_node=wanted.shares_per_node,
        runtime_injection=pool.spec.runtime_injection,
        reclaim_policy=wanted.reclaim_policy,
        access=_access(wanted),
        layout_version=layout_version,
        state=RangeState.ACTIVE,
    )


def _is_zeroed(observed: Observed, store_uuid: str) -> bool:
    """Has the writer zeroed it, and does no other node map it any more? By store, lest an older one of that name counts.

    What a node said before it became the writer says only that it does not map it: so the writer has to have reached the layout
    in which it is the writer.
    """
    living = [node for node in observed.nodes if not node.spec.standing.is_dead]
    has_writer = any(node.spec.writer and node.status.layout_version == node.spec.layout_version for node in living)
    return has_writer and all(store_uuid in node.status.released for node in living)


def _is_forced(one: GismoNamespace, pool: GismoPool | None) -> bool:
    """May its users be left behind? Of a pool that is gone: what was so when it was last seen."""
    if FORCE_DELETE in one.metadata.annotations:
        return True
    if pool is None:
        return one.spec.force
    text = pool.metadata.annotations.get(FORCE_DELETE, "")
    return one.spec.namespace in {part.strip() for part in text.split(",")}


def _writer_said(observed: Observed) -> NodeStatus:
    """What stands in the pool label, by who writes it. Also of long ago: what was refused is so for ever."""
    writers = (one.status for one in observed.nodes if one.spec.writer and not one.spec.standing.is_dead)
    return next(writers, NodeStatus())


def _quarantined(observed: Observed) -> tuple[Quarantined, ...]:
    """What the pool label keeps from use, with who uses it, wherever that is."""
    holders: dict[str, list[str]] = {}
    for node in observed.nodes:
        for one in node.status.quarantined if not node.spec.standing.is_dead else ():
            holders.setdefault(one.store_uuid, []).extend(f"{who} on {node.spec.node}" for who in one.holders)

    def found(one: QuarantinedRange) -> Quarantined:
        where = Range(one.offset_bytes, one.size_bytes)
        return Quarantined(one.namespace, one.store_uuid, where, tuple(holders[one.store_uuid]))

    return tuple(found(one) for one in _writer_said(observed).quarantined)
