"""Which records may be freed: collector.py alone, without Ray."""

from __future__ import annotations

import pytest

from gismo_core.ray import collector
from gismo_core.ray.collector import Budget, Memory
from gismo_core.ray.index import Index
from gismo_core.ray.record import Form, Header, Kind
from gismo_core.ray.scan import Scan

KEEPER, MAKER, OTHER = (bytes([n]) * 28 for n in (1, 2, 3))
TASK = b"t" * 24


def header(kind: Kind, token: bytes, foreign: tuple[bytes, ...] = (), task: bytes = TASK) -> Header:
    return Header(
        kind, Form.OBJECT, b"c" * 28, token, task, MAKER, b"n" * 28, b"jjjj", bytes(16), "name", foreign
    )  # fmt: skip


TOKEN = b"k" * 28


def scanned(
    listed: tuple[bytes, ...] = (), tasks: tuple[bytes, ...] = (), **counted: tuple[bytes, tuple[bytes, ...]]
) -> Scan:
    """Of TOKEN, the only one that these scans are made for."""
    by_token = {token: frozenset(workers) for token, workers in counted.values()}
    return Scan({TOKEN} - {*listed, *by_token}, by_token, set(tasks))


def indexed(records: dict[bytes, Header], index: Index | None = None) -> Index:
    """As if a listing had found these, and no others."""
    found = Index() if index is None else index
    found.generation += 1
    found.remove(found.raws() - records.keys())
    for raw in records.keys() - found.raws():
        found.add(raw, records[raw])
    return found


NOTHING = scanned()
RAW = b"r" * 48


def go(records: dict[bytes, Header], *scans: Scan) -> set[bytes]:
    """What the last of these scans, made one after another, proposes."""
    memory = Memory()
    proposed: set[bytes] = set()
    index = Index()
    for seen in scans:
        proposed = collector.proposals(memory, indexed(records, index), seen, {KEEPER})
    return proposed


@pytest.mark.parametrize("kind", Kind)
def test_two_scans_without_the_token_free_a_record(kind: Kind) -> None:
    records = {RAW: header(kind, TOKEN)}
    assert go(records, NOTHING) == set()
    assert go(records, NOTHING, NOTHING) == {RAW}


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("first", [True, False])
def test_a_token_in_either_scan_keeps_its_record(kind: Kind, first: bool) -> None:
    there = scanned(one=(TOKEN, (OTHER,)))
    assert go({RAW: header(kind, TOKEN)}, *((there, NOTHING) if first else (NOTHING, there))) == set()


def test_a_record_made_after_the_first_scan_began_is_not_freed_by_the_second() -> None:
    memory, index = Memory(), Index()
    collector.proposals(memory, indexed({}, index), NOTHING, {KEEPER})
    records = indexed({RAW: header(Kind.PUT, TOKEN)}, index)
    assert collector.proposals(memory, records, NOTHING, {KEEPER}) == set()
    assert collector.proposals(memory, records, NOTHING, {KEEPER}) == {RAW}


def test_an_incomplete_scan_between_begins_the_pair_anew() -> None:
    memory = Memory()
    records = indexed({RAW: header(Kind.PUT, TOKEN)})
    collector.proposals(memory, records, NOTHING, {KEEPER})
    memory.forget()
    assert collector.proposals(memory, records, NOTHING, {KEEPER}) == set()


@pytest.mark.parametrize("kind", Kind)
def test_an_entry_that_does_not_count_keeps_all_but_returns(kind: Kind) -> None:
    lineage = scanned(listed=(TOKEN,))
    assert go({RAW: header(kind, TOKEN)}, lineage, lineage) == ({RAW} if kind is Kind.RETURN else set())


@pytest.mark.parametrize("where", [(KEEPER,), (MAKER,), (KEEPER, MAKER)])
def test_a_return_that_was_never_elsewhere_waits_for_its_task(where: tuple[bytes, ...]) -> None:
    records = {RAW: header(Kind.RETURN, TOKEN)}
    before, under_way = scanned(one=(TOKEN, where)), scanned(tasks=(TASK,))
    assert go(records, before, under_way, under_way) == set()
    assert go(records, before, under_way, NOTHING) == set()
    assert go(records, before, under_way, NOTHING, NOTHING) == {RAW}


def test_a_return_that_was_seen_elsewhere_does_not_wait_for_its_task() -> None:
    under_way = scanned(tasks=(TASK,))
    elsewhere = scanned(tasks=(TASK,), one=(TOKEN, (MAKER, OTHER)))
    assert go({RAW: header(Kind.RETURN, TOKEN)}, elsewhere, under_way, under_way) == {RAW}


@pytest.mark.parametrize("kind", [Kind.PUT, Kind.ARGUMENT])
def test_puts_and_arguments_do_not_wait_for_a_task(kind: Kind) -> None:
    under_way = scanned(tasks=(TASK,))
    assert go({RAW: header(kind, TOKEN)}, under_way, under_way) == {RAW}


def test_what_was_delivered_is_forgotten_with_its_record() -> None:
    memory, index = Memory(), Index()
    records = indexed({RAW: header(Kind.RETURN, TOKEN)}, index)
    collector.proposals(memory, records, scanned(one=(TOKEN, (OTHER,))), {KEEPER})
    assert memory.delivered == {RAW}
    collector.proposals(memory, indexed({}, index), NOTHING, {KEEPER})
    assert memory.delivered == set()


def test_a_scan_looks_for_the_tasks_of_undelivered_returns_only() -> None:
    tasks = [bytes([n]) * 24 for n in range(3)]
    tokens = [bytes([n]) * 28 for n in range(3)]
    records = {
        b"0": header(Kind.PUT, tokens[0], task=tasks[0]),
        b"1": header(Kind.RETURN, tokens[1], task=tasks[1]),
        b"2": header(Kind.RETURN, tokens[2], task=tasks[2]),
    }
    wanted = collector.wanted(indexed(records), delivered={b"2"})
    assert set(wanted.tokens) == {tokens[0]}
    assert wanted.weighed == set(tokens[1:])
    assert wanted.tasks == {tasks[1]}


def test_records_with_one_token_go_one_by_one() -> None:
    """A retried task puts the same ObjectID again."""
    index = Index()
    one, two = b"1" * 48, b"2" * 48
    both = {one: header(Kind.PUT, TOKEN), two: header(Kind.PUT, TOKEN)}
    memory = Memory()
    collector.proposals(memory, indexed(both, index), NOTHING, {KEEPER})
    assert collector.proposals(memory, indexed(both, index), NOTHING, {KEEPER}) == {one, two}
    indexed({two: both[two]}, index)
    assert index.owned() == {TOKEN: (two,)}
    indexed({}, index)
    assert not index.owned()
    assert len(index) == 0


def test_pinned_and_named_records_stay() -> None:
    a, b, c, d = (header(Kind.PUT, token) for token in (b"a", b"b", b"c", b"d"))
    after = {b"A": a, b"B": b, b"C": c, b"D": d, b"N": header(Kind.PUT, b"n", foreign=(b"A",))}
    assert collector.without_named({b"A", b"B", b"C", b"gone"}, indexed(after), {b"B", b"D"}) == {b"C"}


def test_a_record_goes_together_with_the_one_that_names_it() -> None:
    after = {b"A": header(Kind.PUT, b"a"), b"N": header(Kind.RETURN, b"n", foreign=(b"A",))}
    assert collector.without_named({b"A", b"N"}, indexed(after), set()) == {b"A", b"N"}
    assert collector.without_named({b"A", b"N"}, indexed(after), {b"N"}) == set()


def test_the_budget_is_a_share_of_a_core_over_a_minute() -> None:
    budget = Budget(share=0.02, window_s=60)
    assert budget.allows(0)
    assert budget.wait_s(0) == 0
    budget.charge(1.3, 0)  # of 1.2 s
    assert not budget.allows(1)
    assert budget.wait_s(1) == pytest.approx(4)
    assert budget.allows(5.1)
    budget.allows(10_000)
    assert budget.at_hand_s == pytest.approx(1.2), "what is not used is not saved for longer than the window"
