"""Which layout is next: of what the API says, and of the one that holds. docs/pool-label.md, "What gets into a layout". Pure.

The API may have for a while what must never be, as a new object that was sent long ago is stopped by nothing. Here it is
stopped: what is not free is not taken, and what was refused once is never taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gismo_deviceplugin.pool.label import (
    END_BYTES,
    Host,
    LabelRange,
    Layout,
    Refused,
    State,
    check_successor,
)
from gismo_deviceplugin.pool.view import NodeView, PoolView, RangeView

_GIVEN_UP = (State.RELEASING, State.QUARANTINED)


class Waiting(RuntimeError):
    """Nothing is wrong: another node, or the operator, has to do something first."""


class HostIdTaken(RuntimeError):
    """The host id of this node is another node's: nothing may be done under it. In words that say what to do."""


@dataclass(frozen=True, slots=True)
class Next:
    """What decide() decided."""

    layout: Layout
    refused: frozenset[str]  # store UUIDs of objects that are there, and whose ranges are never taken


def check_seen(view: PoolView, boot_id: str) -> None:
    """Does the operator know of this boot of the node? Else Waiting: what was decided of an earlier boot may not be known here."""
    if view.me.boot_id != boot_id:
        raise Waiting("the GismoNode has to show this boot of the node")
    if view.me.standing == "Dead":
        raise Waiting("the operator takes the node for dead: it is not Ready, or somebody said so")


def check_host_id(layout: Layout, me: NodeView) -> None:
    """Is the host id this node's own? Else HostIdTaken, or Waiting where it is nobody's yet."""
    host = layout.host(me.host_id)
    if host is None:
        raise Waiting("the writer node has to write the host id of this node into the pool label")
    if host.node != me.node:
        raise HostIdTaken(
            f"host id {me.host_id} is that of {host.node} in the pool label: the operator gives this node another one; where no "
            "operator runs, start it"
        )


def decide(held: Layout | None, view: PoolView, size_bytes: int) -> Next:
    """By the writer node. NotASuccessor where nothing of it may be written."""
    version = view.me.layout_version
    there = {one.store_uuid: one for one in held.ranges} if held is not None else {}
    refused = {one.store_uuid: one for one in held.refused} if held is not None else {}
    said: set[str] = set()
    kept: list[LabelRange] = []
    new: list[LabelRange] = []

    def refuse(one: RangeView) -> None:
        before = refused.get(one.store_uuid)
        own = max(one.layout_version, before.layout_version if before is not None else 0)
        refused[one.store_uuid] = Refused(one.store_uuid, own)
        said.add(one.store_uuid)

    for one in view.ranges:
        old = there.get(one.store_uuid)
        if old is not None:
            kept.append(_gone_on(old, one))
            if not old.state.is_used and one.state not in _GIVEN_UP:
                said.add(one.store_uuid)
        elif (
            one.state in _GIVEN_UP
            or one.store_uuid in refused
            or (held is not None and one.layout_version < held.version)
        ):
            refuse(one)
        else:
            new.append(_as_asked(one))
    asked = {one.store_uuid: one for one in view.ranges}
    kept += [one for uuid, one in there.items() if uuid not in asked and _stays(one, version)]
    for fresh in sorted(new, key=lambda one: (one.layout_version, one.offset_bytes, one.store_uuid)):
        in_its_way = [one for one in kept if _overlap(one, fresh)]
        is_outside = fresh.offset_bytes < END_BYTES or fresh.end_bytes > size_bytes - END_BYTES
        if is_outside or any(not one.state.is_end for one in in_its_way):
            refuse(asked[fresh.store_uuid])
        elif not in_its_way:
            kept.append(fresh)
    layout = Layout(
        version,
        view.pool,
        tuple(sorted(kept, key=lambda one: one.offset_bytes)),
        _hosts(held, (view.me, *sorted(view.others, key=lambda one: one.node))),
        tuple(
            one
            for uuid, one in sorted(refused.items())
            if uuid in asked or version <= one.layout_version  # until it is older than the label for certain
        ),
    )
    check_successor(held, layout, size_bytes)
    return Next(layout, frozenset(said))


def _gone_on(old: LabelRange, one: RangeView) -> LabelRange:
    """A range that the label has, as the API has it now. What is given up there for ever stays so."""
    own = max(old.layout_version, one.layout_version)
    if old.state.is_end or (old.state is State.QUARANTINED and one.state not in _GIVEN_UP):
        # The object may be another one, that came late: it changes nothing.
        return replace(old, layout_version=own)
    state = State.QUARANTINED if old.state is State.QUARANTINED else one.state
    return replace(_as_asked(one), state=state, layout_version=own, formatted=old.formatted)


def _as_asked(one: RangeView) -> LabelRange:
    return LabelRange(one.namespace, one.offset_bytes, one.size_bytes, one.store_uuid, one.state, one.layout_version)


def _stays(one: LabelRange, version: int) -> bool:
    """A range that the API has no more. One that may be used makes the layout no successor, which is said."""
    return not one.state.is_used and not (one.state is State.ZEROED and version > one.layout_version)


def _overlap(one: LabelRange, other: LabelRange) -> bool:
    return one.offset_bytes < other.end_bytes and other.offset_bytes < one.end_bytes


def _hosts(held: Layout | None, nodes: Iterable[NodeView]) -> tuple[Host, ...]:
    """Also of those that have left: their lanes in the stores are not to be given to others. Whose an id is first keeps it."""
    known = {one.host_id: one for one in (held.hosts if held is not None else ())}
    for node in nodes:
        if node.host_id not in known or known[node.host_id].node == node.node:
            known[node.host_id] = Host(node.host_id, node.node, node.incarnation)
    return tuple(known[host_id] for host_id in sorted(known))


def abandoned(layout: Layout, view: PoolView) -> list[LabelRange]:
    """Ranges that are given up by force, and those that are being zeroed, or were, and have no object: they are known by the label alone.

    What was given up by force may be zeroed already, where the node of a user was dead by then: it waits for nobody more.
    """
    waited_for = {one.store_uuid for one in view.ranges if one.state is not State.QUARANTINED}
    return [
        one
        for one in layout.ranges
        if one.state is State.QUARANTINED or (one.state.is_end and one.store_uuid not in waited_for)
    ]


def has_released(node: NodeView, store_uuid: str) -> bool:
    """Does that node not use it any more? What the dead used is void."""
    return node.standing == "Dead" or store_uuid in node.released
