"""Records say what the structs of the core say."""

from __future__ import annotations

import pytest

from gismo_core import CorruptStore, ObjectState, _native, records


def numbered(struct: object, start: int = 1) -> None:
    """Every plain number of a struct becomes another one."""
    for number, (name, _) in enumerate(struct._fields_, start):  # type: ignore[attr-defined]
        if isinstance(getattr(struct, name), int):
            setattr(struct, name, number)


def test_objects() -> None:
    raw = _native.CObjectInfo()
    numbered(raw)
    numbered(raw.handle, 100)
    raw.state = 2
    raw.pinned_lanes = 1 << 63 | 1 << 5 | 1
    raw.name = b"name and more"
    raw.name_bytes = 4
    made = records.object_info(raw)
    assert (made.handle.offset, made.handle.length, made.handle.slot, made.handle.lane) == (102, 103, 104, 105)
    assert (made.state, made.nbytes, made.name, made.pinned_hosts) == (ObjectState.SEALED, 103, "name", (0, 5, 63))
    for name in (
        "tag",
        "created_unix_ns",
        "extent_bytes",
        "creator",
        "owner_lane",
        "pins_here",
        "buffers",
        "payload_crc",
    ):
        assert getattr(made, name) == getattr(raw, name), name
    assert records.object_use(raw) == (raw.tag, raw.extent_bytes, raw.pinned_lanes, raw.pins_here)
    raw.has_crc = raw.name_bytes = raw.pinned_lanes = 0
    made = records.object_info(raw)
    assert (made.payload_crc, made.name, made.pinned_hosts) == (None, None, ())


def test_an_unknown_state_is_a_corrupt_store() -> None:
    raw = _native.CObjectInfo(state=77)
    with pytest.raises(CorruptStore, match="77"):
        records.object_info(raw)


@pytest.mark.parametrize(
    ("struct", "make"),
    [
        (_native.Info, records.store_info),
        (_native.CStats, records.stats),
        (_native.CHostInfo, records.host_info),
        (_native.CProcessInfo, records.process_info),
    ],
)
def test_every_field_arrives(struct: type, make: object) -> None:
    raw = struct()
    numbered(raw)
    if hasattr(raw, "state"):
        raw.state = 1
    made = make(raw)  # type: ignore[operator]
    for name in type(made).__slots__:
        value = getattr(raw, name)
        if isinstance(value, int) and name != "coherence":
            assert getattr(made, name) == value or getattr(made, name) is True, name


def test_holders_are_the_largest() -> None:
    tags = [records.TagInfo(tag, 1, tag * 10, 0) for tag in range(20)]
    process = records.process_info(_native.CProcessInfo(pid=7, pins=3, writing=2, command=b"worker"))
    idle = records.process_info(_native.CProcessInfo(pid=8))
    found = records.holders([process, idle], tags, 16)
    assert len(found) == 16
    assert [one.ident for one in found if one.kind == "tag"] == list(range(19, 4, -1))
    assert [(one.ident, one.label, one.objects) for one in found if one.kind == "process"] == [(7, "worker", 5)]


def verdict(outcome: int, rounds: int, violations: int, reasons: int = 0) -> records.LitmusVerdict:
    raw = _native.CLitmusVerdict(outcome=outcome, partner_host=5, tested_unix_ns=7, reasons=reasons)
    raw.rounds[:] = (rounds, 0, 0, 1234)
    raw.violations[:] = (violations, 0, 0, 0)
    return records.litmus_verdict(raw)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (verdict(1, 10**8, 0), "holds"),
        (verdict(2, 10**8, 3), "violated: A1.dekker 3 of 1e8"),
        (verdict(2, 123_000, 3), "violated: A1.dekker 3 of 123000"),
        (verdict(2, 50, 3), "violated: A1.dekker 3 of 50"),
        (verdict(3, 10**8, 0, 3), "not meaningful: emulated"),
        (verdict(3, 2 * 10**6, 9, 1), "not meaningful: emulated (violated: A1.dekker 9 of 2e6)"),
    ],
)
def test_verdicts_in_words(made: records.LitmusVerdict, text: str) -> None:
    assert str(made) == text


def test_verdicts() -> None:
    made = verdict(3, 10, 0, 3)
    assert [(one.name, one.rounds) for one in made.tests] == [("A1.dekker", 10), ("A3.tearing", 1234)]  # what was run
    assert (made.partner_host, made.tested_unix_ns) == (5, 7)
    assert made.emulated == ("the medium is a file", "both sides are one machine")
    assert records.host_info(_native.CHostInfo(state=1)).litmus is None
    with pytest.raises(CorruptStore):
        verdict(4, 1, 0)
