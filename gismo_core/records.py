"""What the store tells about itself: frozen records, sizes in bytes, times in nanoseconds since 1970 (UTC)."""

from __future__ import annotations

import enum
import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from gismo_core import _native
from gismo_core.errors import CorruptStore
from gismo_core.handles import Handle, first_48, unchecked

SILENT_SAMPLES = 10  # GISMO_SILENT_SAMPLES


class ObjectState(enum.IntEnum):
    """Of a slot. FREE ones are never reported."""

    FREE = 0
    WRITING = 1
    SEALED = 2
    DELETED = 3


class HostState(enum.IntEnum):
    """Of a lane."""

    FREE = 0
    ACTIVE = 1
    QUIET = 2
    FENCED = 3
    RELEASED = 4


class Severity(enum.IntEnum):
    """Of a finding of fsck."""

    NOTE = 0
    WARNING = 1
    ERROR = 2
    REPAIRED = 3


class LitmusOutcome(enum.IntEnum):
    """What `gismo litmus` found. NOT_MEANINGFUL: between two that have one cache, so nothing could be wrong."""

    HOLDS = 1
    VIOLATED = 2
    NOT_MEANINGFUL = 3


LITMUS_TESTS = ("A1.dekker", "A1.message", "A2.never_dirtied", "A3.tearing")
LITMUS_MOST = 2**32 - 1  # a count that large means: as many, or more
_LITMUS_REASONS = ("the medium is a file", "both sides are one machine")


class SealedObject(NamedTuple):
    """One sealed object as a scan of many sees it; a tuple, because a scan makes thousands of them."""

    raw_handle: bytes
    tag: int
    pins_here: int

    @property
    def handle(self) -> Handle:
        """What names the object."""
        return unchecked(self.raw_handle)


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Identity and geometry of a store, as written when it was formatted."""

    store_uuid: uuid.UUID
    size_bytes: int
    data_bytes: int
    max_objects: int
    max_hosts: int
    created_unix_ns: int
    arena_bytes: int
    arenas: int
    slot_groups: int
    coherence: str
    format_version: int
    is_dax: bool
    feature_compat: int
    feature_ro_compat: int
    feature_incompat: int


@dataclass(frozen=True, slots=True)
class Stats:
    """A moment of the store. Counters are this host's since it joined; `used_bytes` counts all hosts."""

    data_bytes: int
    used_bytes: int
    free_bytes: int
    largest_free_bytes: int
    sealed_objects: int
    writing_objects: int
    deleted_objects: int
    free_objects: int
    pins_here: int
    puts: int
    gets: int
    deletes: int
    put_bytes: int
    get_bytes: int
    recovered_processes: int
    recovered_objects: int
    lane: int
    processes: int
    arenas_owned: int
    groups_owned: int


@dataclass(frozen=True, slots=True)
class LitmusCount:
    """Of one of LITMUS_TESTS: rounds of each side, and how many of them were not as FORMAT.md assumes."""

    name: str
    rounds: int
    violations: int


@dataclass(frozen=True, slots=True)
class LitmusVerdict:
    """What `gismo litmus` found on a host, with which partner. `emulated`: why it is not meaningful, in words."""

    outcome: LitmusOutcome
    tested_unix_ns: int
    tests: tuple[LitmusCount, ...]
    partner_host: int
    partner_boot_id: uuid.UUID
    emulated: tuple[str, ...]

    def __str__(self) -> str:
        if self.outcome == LitmusOutcome.HOLDS:
            return "holds"
        found = ", ".join(
            f"{one.name} {one.violations} of {_round(one.rounds)}" for one in self.tests if one.violations
        )
        if self.outcome == LitmusOutcome.VIOLATED:
            return f"violated: {found}"
        return "not meaningful: emulated" + (f" (violated: {found})" if found else "")


def _round(number: int) -> str:
    """100000000 -> '1e8'; other numbers as they are."""
    digits = str(number)
    head = digits.rstrip("0")
    return f"{head}e{len(digits) - 1}" if len(head) == 1 and len(digits) > 3 else digits


@dataclass(frozen=True, slots=True)
class HostInfo:
    """One host (lane) that has joined the store. `litmus`: what it found out about its hardware in this boot, if it did."""

    host_id: int
    state: HostState
    incarnation: int
    heartbeat: int
    heartbeat_unix_ns: int
    joined_unix_ns: int
    boot_id: uuid.UUID
    state_dir_uuid: uuid.UUID
    used_bytes: int
    objects: int
    arenas: int
    groups: int
    is_self: bool
    silent_samples: int
    litmus: LitmusVerdict | None

    @property
    def suspect(self) -> bool:
        """Its heartbeat stood still at so many looks of this host, one a second, that it may be gone."""
        return self.state is HostState.ACTIVE and self.silent_samples >= SILENT_SAMPLES


@dataclass(frozen=True, slots=True)
class Eviction:
    """How far the eviction of a host has come. `state`: ACTIVE, FENCED, RELEASED, and QUIET when it is done.

    silent_samples: looks, of SILENT_SAMPLES, while it is ACTIVE. objects, object_bytes: of the host, which stay, when done.
    left: deleted objects of it are still read elsewhere; their room comes back when they are let go.
    """

    state: HostState
    silent_samples: int
    objects: int
    object_bytes: int
    left: bool


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process of this host. `pid` is inside its own PID namespace: for people, never for decisions."""

    index: int
    epoch: int
    pid: int
    command: str
    joined_unix_ns: int
    puts: int
    gets: int
    deletes: int
    put_bytes: int
    get_bytes: int
    pins: int
    writing: int
    chunks: int
    alive: bool
    is_self: bool


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object, whatever its state. `pinned_hosts`: who holds or lately held it; `pins_here`: this host's pins."""

    handle: Handle
    state: ObjectState
    nbytes: int
    extent_bytes: int
    name: str | None
    tag: int
    created_unix_ns: int
    creator: int
    owner_lane: int
    pinned_hosts: tuple[int, ...]
    pins_here: int
    buffers: int
    payload_crc: int | None


@dataclass(frozen=True, slots=True)
class TagInfo:
    """What the objects with one tag take. `pins`: of this host's processes."""

    tag: int
    objects: int
    extent_bytes: int
    pins: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that fsck has to say."""

    severity: Severity
    code: str
    message: str
    slot: int


@dataclass(frozen=True, slots=True)
class FsckReport:
    """Outcome of a check. `ok`: no error is left. `leaked_bytes`: neither free nor any object's, on this host."""

    ok: bool
    objects: int
    payloads_verified: int
    notes: int
    warnings: int
    errors: int
    repaired: int
    leaked_bytes: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds room: a process of this host (`kind` "process": pins and objects being written) or a tag."""

    kind: str
    ident: int
    label: str
    objects: int
    nbytes: int


_Enum = TypeVar("_Enum", bound=enum.IntEnum)


_BRIEF = struct.Struct("<48sQI4x")
BRIEF_BYTES = _BRIEF.size
_HANDLE_BYTES, _HANDLE_SLOT_AT = 48, 40
_CHANGE_FIELDS = struct.Struct("<40xI4x8xII")


def _member(kind: type[_Enum], value: int) -> _Enum:
    try:
        return kind(value)
    except ValueError:
        raise CorruptStore(f"the store holds {value} for a {kind.__name__}; run `gismo fsck`") from None


def _uuid(field: Any) -> uuid.UUID:
    return uuid.UUID(bytes=bytes(field))


def _text(field: bytes) -> str:
    return field.decode("utf-8", "replace")


def store_info(raw: _native.Info) -> StoreInfo:
    """From gismo_info."""
    return StoreInfo(
        store_uuid=_uuid(raw.store_uuid),
        size_bytes=raw.size_bytes,
        data_bytes=raw.data_bytes,
        max_objects=raw.max_objects,
        max_hosts=raw.max_hosts,
        created_unix_ns=raw.created_unix_ns,
        arena_bytes=raw.arena_bytes,
        arenas=raw.arenas,
        slot_groups=raw.slot_groups,
        coherence="software" if raw.coherence else "hardware",
        format_version=raw.format_version,
        is_dax=bool(raw.is_dax),
        feature_compat=raw.feature_compat,
        feature_ro_compat=raw.feature_ro_compat,
        feature_incompat=raw.feature_incompat,
    )


def stats(raw: _native.CStats) -> Stats:
    """From gismo_stats, field by field."""
    return Stats(**{name: getattr(raw, name) for name in Stats.__slots__})


def host_info(raw: _native.CHostInfo) -> HostInfo:
    """From gismo_host_info."""
    return HostInfo(
        host_id=raw.host_id,
        state=_member(HostState, raw.state),
        incarnation=raw.incarnation,
        heartbeat=raw.heartbeat,
        heartbeat_unix_ns=raw.heartbeat_unix_ns,
        joined_unix_ns=raw.joined_unix_ns,
        boot_id=_uuid(raw.boot_id),
        state_dir_uuid=_uuid(raw.state_dir_uuid),
        used_bytes=raw.used_bytes,
        objects=raw.objects,
        arenas=raw.arenas,
        groups=raw.groups,
        is_self=bool(raw.is_self),
        silent_samples=raw.silent_samples,
        litmus=litmus_verdict(raw.litmus) if raw.litmus.outcome else None,
    )


def litmus_verdict(raw: _native.CLitmusVerdict) -> LitmusVerdict:
    """From gismo_litmus_verdict."""
    return LitmusVerdict(
        outcome=_member(LitmusOutcome, raw.outcome),
        tested_unix_ns=raw.tested_unix_ns,
        tests=tuple(
            LitmusCount(name, rounds, violations)
            for name, rounds, violations in zip(LITMUS_TESTS, raw.rounds, raw.violations, strict=True)
            if rounds
        ),
        partner_host=raw.partner_host,
        partner_boot_id=_uuid(raw.partner_boot_id),
        emulated=tuple(words for bit, words in enumerate(_LITMUS_REASONS) if raw.reasons >> bit & 1),
    )


def eviction(raw: _native.CEvictResult) -> Eviction:
    """From gismo_evict_result."""
    return Eviction(_member(HostState, raw.state), raw.silent_samples, raw.objects, raw.object_bytes, bool(raw.left))


def process_info(raw: _native.CProcessInfo) -> ProcessInfo:
    """From gismo_process_info."""
    return ProcessInfo(
        index=raw.index,
        epoch=raw.epoch,
        pid=raw.pid,
        command=_text(raw.command),
        joined_unix_ns=raw.joined_unix_ns,
        puts=raw.puts,
        gets=raw.gets,
        deletes=raw.deletes,
        put_bytes=raw.put_bytes,
        get_bytes=raw.get_bytes,
        pins=raw.pins,
        writing=raw.writing,
        chunks=raw.chunks,
        alive=bool(raw.alive),
        is_self=bool(raw.is_self),
    )


# The fields of gismo_object_info after the handle and before the name, as one: a fourth of the cost of one by one.
_OBJECT_FIELDS = struct.Struct("<32xQ8x4Q8I")
_USE_FIELDS = struct.Struct("<48xQ8xQQ20xI8x")


def object_info(raw: _native.CObjectInfo) -> ObjectInfo:
    """From gismo_object_info."""
    (
        nbytes,
        tag,
        created_unix_ns,
        extent_bytes,
        pinned_mask,
        state,
        payload_crc,
        has_crc,
        creator,
        owner_lane,
        pins_here,
        buffers,
        name_bytes,
    ) = _OBJECT_FIELDS.unpack_from(raw)
    name = None
    if name_bytes:
        start = _native.CObjectInfo.name.offset
        name = _text(bytes(raw)[start : start + min(name_bytes, _native.NAME_MAX)])
    return ObjectInfo(
        unchecked(*first_48(raw)),
        _member(ObjectState, state),
        nbytes,
        extent_bytes,
        name,
        tag,
        created_unix_ns,
        creator,
        owner_lane,
        tuple(host for host in range(64) if pinned_mask >> host & 1) if pinned_mask else (),
        pins_here,
        buffers,
        payload_crc if has_crc else None,
    )


def sealed_objects(raw: memoryview) -> Iterable[SealedObject]:
    """Of gismo_brief records, end to end."""
    return map(SealedObject._make, _BRIEF.iter_unpack(raw))


class BriefChange(enum.IntEnum):
    """Of a gismo_brief record that gismo_follow made."""

    UNCHANGED = 0  # told because it is pinned
    NEW = 1
    GONE = 2


def brief_changes(raw: memoryview) -> list[tuple[int, int, bool, bytes]]:
    """Of gismo_brief records that gismo_follow made, end to end: (BriefChange, slot, whether this host pins it, raw
    handle; of what is gone the handle says nothing)."""
    return [
        (change, slot, bool(pins), bytes(raw[at : at + _HANDLE_BYTES]))
        for at, (slot, pins, change) in zip(
            range(0, len(raw), BRIEF_BYTES), _CHANGE_FIELDS.iter_unpack(raw), strict=True
        )
    ]


def slot_of_handle(raw: bytes) -> int:
    """The slot in a raw handle."""
    return int.from_bytes(raw[_HANDLE_SLOT_AT : _HANDLE_SLOT_AT + 4], "little")


def object_use(raw: _native.CObjectInfo) -> tuple[int, int, int, int]:
    """Tag, extent bytes, hosts that pin it (bits) and pins here, from gismo_object_info."""
    tag, extent_bytes, pinned_hosts, pins_here = _USE_FIELDS.unpack_from(raw)
    return tag, extent_bytes, pinned_hosts, pins_here


def finding(severity: int, code: bytes, message: bytes, slot: int) -> Finding:
    """From the arguments of gismo_fsck_report."""
    return Finding(_member(Severity, severity), _text(code), _text(message), slot)


def fsck_report(raw: _native.CFsckResult, ok: bool, findings: tuple[Finding, ...]) -> FsckReport:
    """From gismo_fsck_result."""
    return FsckReport(
        ok=ok,
        objects=raw.objects,
        payloads_verified=raw.payloads_verified,
        notes=raw.notes,
        warnings=raw.warnings,
        errors=raw.errors,
        repaired=raw.repaired,
        leaked_bytes=raw.leaked_bytes,
        findings=findings,
    )


def holders(processes: Iterable[ProcessInfo], tags: Iterable[TagInfo], most: int) -> tuple[Holder, ...]:
    """The largest holders: tags by bytes, processes by how many objects they pin or write."""
    by_process = [
        Holder("process", one.pid, one.command or f"process {one.index}", one.pins + one.writing, 0)
        for one in processes
        if one.pins or one.writing
    ]
    by_tag = [Holder("tag", one.tag, f"tag {one.tag}", one.objects, one.extent_bytes) for one in tags]
    by_tag.sort(key=lambda holder: holder.nbytes, reverse=True)
    by_process.sort(key=lambda holder: holder.objects, reverse=True)
    half = most // 2
    return (*by_tag[: most - min(half, len(by_process))], *by_process[:half])
