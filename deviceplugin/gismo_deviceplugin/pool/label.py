"""The pool label: identity, layout, and a line for each node, at both ends of a pool's memory. docs/pool-label.md.

The layout stands four times: two slots at each end, of which a writing overwrites the older one, the tail's first. So at
any moment a whole one is there, whatever dies or is torn; and the newest whole one is the one that holds. There is one
writer node; other nodes write their own line only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from gismo_deviceplugin.pool import records
from gismo_deviceplugin.pool.records import Memory, Record

END_BYTES = 2 << 20
MAX_HOSTS = 64
_KIB = 1 << 10
IDENTITY_ROOM_BYTES = 4 * _KIB
_LINES, _LINE_ROOM = 64 * _KIB, 2 * _KIB  # two records for each host
_SLOTS, _SLOT_ROOM = (512 * _KIB, 1024 * _KIB), 512 * _KIB
_IDENTITY, _LAYOUT, _LINE = b"GISMOID1", b"GISMOLO1", b"GISMONL1"
_TO_WIPE = "empty the directory (emulated) or wipe the region (dax: docs/kubernetes.md, Carving a DAX region)"


class LabelError(RuntimeError):
    """The label is not what it must be; the message says what was found."""


class NotASuccessor(LabelError):
    """A layout that must not follow the one that holds: nothing was written."""


class AnotherPool(NotASuccessor):
    """The memory is that of another pool."""

    def __init__(self, theirs: str, ours: str) -> None:
        super().__init__(
            f"this memory is pool {theirs}'s, as its label says, and cannot be {ours}'s too: give {ours} another memory, or nodes "
            f"that reach another. Where {theirs} is gone for good, and its data too, {_TO_WIPE}"
        )


class Behind(NotASuccessor):
    """It is older than the one that holds: the API has lost what it knew, or has not told it yet."""

    def __init__(self, version: int, held: int) -> None:
        super().__init__(f"layout {version} is older than the one in the pool label, {held}")
        self.held = held


class State(str, Enum):
    """Of a range. Quarantined: given up by force, and kept from use. Zeroing: its bytes are being overwritten, and are nobody's.

    Zeroed: that is done.
    """

    ACTIVE = "Active"
    RETAINED = "Retained"
    RELEASING = "Releasing"
    QUARANTINED = "Quarantined"
    ZEROING = "Zeroing"
    ZEROED = "Zeroed"

    @property
    def is_end(self) -> bool:
        """Its bytes are nobody's, or are about to be."""
        return self in (State.ZEROING, State.ZEROED)

    @property
    def is_used(self) -> bool:
        """May its store be used? There is no way back to that."""
        return not (self.is_end or self is State.QUARANTINED)


@dataclass(frozen=True, slots=True)
class Identity:
    """Of the memory."""

    pool_uid: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LabelRange:
    """A range as the label has it."""

    namespace: str
    offset_bytes: int
    size_bytes: int
    store_uuid: str
    state: State = State.ACTIVE
    layout_version: int = 0  # its own, the highest that was seen
    formatted: bool = False  # its store was there once: where it is gone, none is made in its place

    @property
    def end_bytes(self) -> int:
        """The first byte behind it."""
        return self.offset_bytes + self.size_bytes


@dataclass(frozen=True, slots=True)
class Host:
    """Who has a host id."""

    host_id: int
    node: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A store that is never taken."""

    store_uuid: str
    layout_version: int  # its own, the highest that was seen


@dataclass(frozen=True, slots=True)
class Layout:
    """What lies where, as of one layoutVersion."""

    version: int
    pool: str
    ranges: tuple[LabelRange, ...] = ()
    hosts: tuple[Host, ...] = ()
    refused: tuple[Refused, ...] = ()

    def host(self, host_id: int) -> Host | None:
        """Who has that id; None: nobody."""
        return next((one for one in self.hosts if one.host_id == host_id), None)


@dataclass(frozen=True, slots=True)
class NodeLine:
    """What a node says of itself in the memory."""

    host_id: int
    node: str
    boot_id: str
    nonce: str
    layout_version: int
    seen: tuple[tuple[int, str], ...] = ()  # host ids, and the beginnings of nonces that were found in their lines


class Label:
    """The label of one pool's memory."""

    def __init__(self, memory: Memory) -> None:
        if memory.size_bytes < 2 * END_BYTES:
            raise LabelError(
                f"the memory has {memory.size_bytes} bytes, and the pool label alone takes {2 * END_BYTES}"
            )
        self._memory = memory
        self._ends = (0, memory.size_bytes - END_BYTES)  # head, tail

    @property
    def size_bytes(self) -> int:
        """Of the memory, both ends included."""
        return self._memory.size_bytes

    # ---- identity --------------------------------------------------------------------------------

    def identity(self) -> Identity | None:
        """None: no pool was ever formatted here. LabelError where the ends are not those of one memory."""
        head, tail = self._identities()
        if head is None and tail is None:
            return None
        if head is not None and head.size_bytes != self._memory.size_bytes:
            # First of all, since the tail is looked for in another place then.
            raise LabelError(
                f"the pool was formatted with {head.size_bytes} bytes, and {self._memory.size_bytes} are seen here"
            )
        if head is None or tail is None:
            if self.layout() is None:
                return None  # formatting was cut off between the two: it is begun again
            raise LabelError(
                f"the {'head' if head is None else 'tail'} of the pool label is gone, the other end is there"
            )
        if head != tail:
            raise LabelError(f"head and tail are not of one memory: pool {head.pool_uid} and {tail.pool_uid}")
        return head

    def format(self, pool_uid: str) -> Identity:
        """Once for a memory, by the writer node. LabelError where there is a pool already."""
        if self.identity() is not None:
            raise LabelError("there is a pool already in this memory: it is never formatted over")
        made = Identity(pool_uid, self.size_bytes)
        self._write_identity(made, reversed(self._ends))
        return made

    def has_other_size(self) -> bool:
        """Of memory whose size is a figure alone: was it formatted with another one, or did who writes the new one die meanwhile?"""
        head, tail = self._identities()
        if head is None and tail is None:
            return False
        if head is None or tail is None:
            return self.layout() is not None  # else its formatting was cut off
        return {head.size_bytes, tail.size_bytes} != {self.size_bytes}

    def resize(self) -> None:
        """By the writer node, where has_other_size(). NotASuccessor where a range would lie outside then."""
        held = self.layout()
        if held is not None:
            _check_apart(held.ranges, self.size_bytes)
        head, tail = self._identities()
        known = head or tail
        if known is None:
            raise LabelError("there is no pool in this memory")
        # What is whole at one end alone is not written before the other is.
        ends = self._ends if head is None else reversed(self._ends)
        self._write_identity(Identity(known.pool_uid, self.size_bytes), ends)

    def _identities(self) -> tuple[Identity | None, Identity | None]:
        head, tail = (_identity(self._record(end, IDENTITY_ROOM_BYTES, _IDENTITY)) for end in self._ends)
        return head, tail

    def _write_identity(self, one: Identity, ends: Iterable[int]) -> None:
        text = {"poolUID": one.pool_uid, "sizeBytes": one.size_bytes}
        for end in ends:
            records.write(self._memory, end, IDENTITY_ROOM_BYTES, _IDENTITY, 1, text)

    # ---- layout ----------------------------------------------------------------------------------

    def layout(self) -> Layout | None:
        """The one that holds: the newest that is whole."""
        newest = max(self._layouts(), key=lambda one: one[0].sequence, default=None)
        return None if newest is None else _layout(newest[0].text)

    def write_layout(self, new: Layout) -> None:
        """By the writer node. NotASuccessor, and nothing is written, where it must not follow the one that holds."""
        found = self._layouts()
        newest = max((record.sequence for record, _, _ in found), default=0)
        held = self.layout()
        check_successor(held, new, self._memory.size_bytes)
        text = _text(new)
        # Where it is there already, the writing before may have been cut off after the tail: then the head gets it now.
        sequence = newest if held == new else newest + 1
        done = {end for record, end, _ in found if record.sequence == sequence}
        for end in reversed(self._ends):
            if end not in done:
                place = end + self._older_slot(end, newest)
                records.write(self._memory, place, _SLOT_ROOM, _LAYOUT, sequence, text)

    def _older_slot(self, end: int, newest: int) -> int:
        """The slot of an end that may be overwritten: not the one that holds the newest of all, where this end has it."""
        sequences = {slot: self._record(end + slot, _SLOT_ROOM, _LAYOUT) for slot in _SLOTS}
        held = [slot for slot, record in sequences.items() if record is not None and record.sequence == newest]
        if held:
            return next(slot for slot in _SLOTS if slot not in held)
        return min(_SLOTS, key=lambda slot: one.sequence if (one := sequences[slot]) is not None else 0)

    def _layouts(self) -> list[tuple[Record, int, int]]:
        """All that are whole: record, end, slot."""
        return [
            (record, end, slot)
            for end in self._ends
            for slot in _SLOTS
            if (record := self._record(end + slot, _SLOT_ROOM, _LAYOUT)) is not None
        ]

    # ---- node lines ------------------------------------------------------------------------------

    def line(self, host_id: int) -> NodeLine | None:
        """What the node with that id said last, as far as it is seen here."""
        newest = max(self._lines(host_id), key=lambda one: one[0].sequence, default=None)
        if newest is None:
            return None
        text = newest[0].text
        seen = tuple(sorted((int(host_id), nonce) for host_id, nonce in text.get("seen", {}).items()))
        return NodeLine(text["hostId"], text["node"], text["bootId"], text["nonce"], text["layoutVersion"], seen)

    def write_line(self, line: NodeLine) -> None:
        """By the node that has this host id, and nobody else."""
        if not 0 <= line.host_id < MAX_HOSTS:
            raise ValueError(f"{line.host_id} is not a host id")
        found = self._lines(line.host_id)
        newest = max((record.sequence for record, _ in found), default=0)
        taken = {place for record, place in found if record.sequence == newest}
        place = next(place for place in self._places(line.host_id) if place not in taken)
        text = {
            "hostId": line.host_id,
            "node": line.node,
            "bootId": line.boot_id,
            "nonce": line.nonce,
            "layoutVersion": line.layout_version,
            "seen": {str(host_id): nonce for host_id, nonce in line.seen},
        }
        records.write(self._memory, place, _LINE_ROOM, _LINE, newest + 1, text)

    def _lines(self, host_id: int) -> list[tuple[Record, int]]:
        return [
            (record, place)
            for place in self._places(host_id)
            if (record := self._record(place, _LINE_ROOM, _LINE)) is not None
        ]

    def _places(self, host_id: int) -> tuple[int, int]:
        first = _LINES + host_id * 2 * _LINE_ROOM
        return first, first + _LINE_ROOM

    def _record(self, offset: int, room: int, magic: bytes) -> Record | None:
        return records.read(self._memory, offset, room, magic)


def check_successor(held: Layout | None, new: Layout, size_bytes: int) -> None:
    """May this layout follow that one? NotASuccessor, if not; the message says which rule it breaks."""
    _check_apart(new.ranges, size_bytes)
    if held is None:
        return
    check_pool(held, new.pool)
    if new.version < held.version:
        raise Behind(new.version, held.version)
    _check_new(held, new)
    still = {one.store_uuid: one for one in new.ranges}
    for old in held.ranges:
        now = still.get(old.store_uuid)
        if now is None:
            if old.state is not State.ZEROED:
                raise NotASuccessor(
                    f"the range of {old.namespace} would go without having been zeroed: the pool label has it in use (store "
                    f"{old.store_uuid}), and the API has no GismoNamespace of that store. Restore that from a backup of the API; or, "
                    f"where what lies in the pool is not wanted any more, {_TO_WIPE}"
                )
            if new.version <= old.layout_version:
                raise NotASuccessor(f"the range of {old.namespace} would go in a layout that is not newer than it")
            continue
        if (now.namespace, now.offset_bytes, now.size_bytes) != (old.namespace, old.offset_bytes, old.size_bytes):
            raise NotASuccessor(f"the range of {old.namespace} would move or be another's")
        if old.formatted and not now.formatted:
            raise NotASuccessor(f"the store of {old.namespace} would be forgotten")
        if old.state.is_end and not now.state.is_end:
            raise NotASuccessor(f"{old.namespace} is being zeroed, and cannot be used again")
        if old.state is State.QUARANTINED and now.state.is_used:
            raise NotASuccessor(f"{old.namespace} was given up by force, and cannot be used again")
    for host in held.hosts:
        heir = new.host(host.host_id)
        if heir is None or heir.node != host.node:
            raise NotASuccessor(f"host id {host.host_id} of {host.node} would be another's")


def _check_new(held: Layout, new: Layout) -> None:
    """What is new in it is not older than the one that holds, and was never refused."""
    known, refused = {one.store_uuid for one in held.ranges}, {one.store_uuid for one in held.refused}
    for one in new.ranges:
        if one.store_uuid in known:
            continue
        if one.layout_version < held.version:
            raise NotASuccessor(
                f"the range of {one.namespace} is of layout {one.layout_version}, and the one in the pool label, "
                f"{held.version}, is without it"
            )
        if one.store_uuid in refused:
            raise NotASuccessor(f"the range of {one.namespace} was refused before")
    now = {one.store_uuid for one in new.refused}
    for each in held.refused:
        if each.store_uuid not in now and new.version <= each.layout_version:
            raise NotASuccessor(f"that store {each.store_uuid} was refused would be forgotten too early")


def check_pool(held: Layout, pool: str) -> None:
    """Is the memory that pool's? AnotherPool, if not."""
    if pool != held.pool:
        raise AnotherPool(held.pool, pool)


def _check_apart(ranges: Iterable[LabelRange], size_bytes: int) -> None:
    end, name = END_BYTES, "the head of the pool label"
    for one in sorted(ranges, key=lambda each: each.offset_bytes):
        if one.size_bytes <= 0 or one.offset_bytes < end:
            raise NotASuccessor(f"the range of {one.namespace} overlaps {name}")
        end, name = one.end_bytes, f"the range of {one.namespace}"
    if end > size_bytes - END_BYTES:
        raise NotASuccessor(f"{name} reaches into the tail of the pool label")


def begins_identity(found: bytes) -> bool:
    """Is it what is left of writing an identity that was cut off somewhere? found: its room, as it is."""
    magic = found[: len(_IDENTITY)].rstrip(b"\0")
    return _IDENTITY.startswith(magic) and (magic == _IDENTITY or not any(found[len(magic) :]))


def _identity(record: Record | None) -> Identity | None:
    return None if record is None else Identity(record.text["poolUID"], record.text["sizeBytes"])


def _text(layout: Layout) -> dict[str, Any]:
    # Who does not know these would take the range away, or format over it.
    is_newer = any(one.formatted or one.state in (State.QUARANTINED, State.ZEROED) for one in layout.ranges)
    return {
        "format": records.NEWEST_FORMAT if is_newer else records.FORMAT,
        "layoutVersion": layout.version,
        "pool": layout.pool,
        "ranges": _camel(layout.ranges),
        "hosts": _camel(layout.hosts),
        "refused": _camel(layout.refused),
    }


def _camel(several: Iterable[LabelRange | Host | Refused]) -> list[dict[str, Any]]:
    return [{_CAMEL[key]: value for key, value in asdict(one).items()} for one in several]


def _layout(text: Mapping[str, Any]) -> Layout:
    return Layout(
        text["layoutVersion"],
        text["pool"],
        tuple(
            LabelRange(
                one["namespace"],
                one["offsetBytes"],
                one["sizeBytes"],
                one["storeUUID"],
                State(one["state"]),
                one.get("layoutVersion", 0),  # an older agent wrote none
                one.get("formatted", False),
            )
            for one in text["ranges"]
        ),
        tuple(Host(one["hostId"], one["node"], one["incarnation"]) for one in text["hosts"]),
        tuple(Refused(one["storeUUID"], one["layoutVersion"]) for one in text.get("refused", ())),
    )


_CAMEL = {
    "namespace": "namespace",
    "offset_bytes": "offsetBytes",
    "size_bytes": "sizeBytes",
    "store_uuid": "storeUUID",
    "state": "state",
    "layout_version": "layoutVersion",
    "formatted": "formatted",
    "host_id": "hostId",
    "node": "node",
    "incarnation": "incarnation",
}
