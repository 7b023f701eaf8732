"""A scan out of raylets' answers, without Ray: what is missing in an answer makes it say nothing."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from gismo_core.ray import answer, scan

W1, W2 = b"1" * 28, b"2" * 28
TASK = b"t" * 24
TOKEN, OTHER = b"k" * 28, b"o" * 28


@dataclass
class Entry:
    """As Ray's ObjectRefInfo."""

    object_id: bytes
    local_ref_count: int = 0
    submitted_task_ref_count: int = 0
    contained_in_owned: Sequence[bytes] = ()
    task_status: int = 0

    @property
    def row(self) -> bytes:
        """As on the wire: the ID first; the rest is ours."""
        return b"\x0a\x1c" + self.object_id + pickle.dumps(self)

    @staticmethod
    def FromString(row: bytes) -> Entry:
        return cast("Entry", pickle.loads(row[30:] if row[:2] == b"\x0a\x1c" else row))


@pytest.fixture(autouse=True)
def messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "entry_class", lambda: Entry)


@dataclass
class Worker:
    """As the answer's CoreWorkerStats, with entries as bytes."""

    worker_id: bytes
    entries: list[Entry] = field(default_factory=list)
    objects_total: int = -1

    def __post_init__(self) -> None:
        self.object_refs = [entry.row for entry in self.entries]
        self.objects_total = len(self.object_refs) if self.objects_total < 0 else self.objects_total


@dataclass
class Reply:
    """As Ray's GetNodeStatsReply."""

    core_workers_stats: list[Worker]
    num_workers: int = -1

    def __post_init__(self) -> None:
        self.num_workers = len(self.core_workers_stats) if self.num_workers < 0 else self.num_workers


def build(*replies: Reply, weighed: Sequence[bytes] = (TOKEN,)) -> scan.Scan:
    seen = scan.build(replies, scan.Wanted({TOKEN}, {*weighed}, {TASK}))
    assert isinstance(seen, scan.Scan)
    return seen


def test_nothing_asked_for_is_nothing_seen() -> None:
    seen = build(Reply([Worker(W1, [Entry(OTHER, 1)])]))
    assert (set(seen.unlisted), seen.counted, set(seen.tasks)) == ({TOKEN}, {}, set())
    assert seen.entries == (1,)


@pytest.mark.parametrize(
    "entry", [Entry(TOKEN, 1), Entry(TOKEN, 0, 1), Entry(TOKEN, 0, 0, [OTHER])], ids=["local", "submitted", "contained"]
)
def test_an_entry_with_references_counts(entry: Entry) -> None:
    seen = build(Reply([Worker(W1, [entry])]), Reply([Worker(W2)]))
    assert seen.counted == {TOKEN: {W1}}
    assert not seen.unlisted


def test_an_entry_without_references_is_listed_only() -> None:
    seen = build(Reply([Worker(W1, [Entry(TOKEN)])]))
    assert seen.counted == {}
    assert not seen.unlisted


def test_all_workers_of_all_nodes_are_told() -> None:
    seen = build(Reply([Worker(W1, [Entry(TOKEN, 1)])]), Reply([Worker(W2, [Entry(TOKEN, 1)])]))
    assert seen.counted == {TOKEN: {W1, W2}}


def test_what_is_not_weighed_is_listed_only() -> None:
    seen = build(Reply([Worker(W1, [Entry(TOKEN, 1)])]), weighed=())
    assert seen.counted == {}
    assert not seen.unlisted


@pytest.mark.parametrize("status", range(14))
def test_a_task_is_under_way_unless_its_owner_says_that_it_is_over(status: int) -> None:
    over = status in (0, 11, 12)  # NIL, FINISHED, FAILED
    one = TASK + b"\1\0\0\0"
    assert set(build(Reply([Worker(W1, [Entry(one, task_status=status)])])).tasks) == (set() if over else {TASK})
    borrower_too = Reply([Worker(W1, [Entry(one, task_status=status)]), Worker(W2, [Entry(one)])])
    assert set(build(borrower_too).tasks) == (set() if over else {TASK})


def test_other_tasks_do_not_matter() -> None:
    assert set(build(Reply([Worker(W1, [Entry(b"u" * 24 + b"\1\0\0\0", task_status=8)])])).tasks) == set()


@pytest.mark.parametrize(
    "bad",
    [
        Reply([Worker(W2)], num_workers=2),
        Reply([Worker(b"")]),
        Reply([Worker(W2, [Entry(OTHER)], objects_total=2)]),
    ],
    ids=["worker missing", "worker silent", "list cut short"],
)
def test_an_answer_with_something_missing_is_incomplete(bad: Reply) -> None:
    good = Reply([Worker(W1, [Entry(TOKEN, 1)])])
    wanted = scan.Wanted({TOKEN}, {TOKEN}, set())
    assert isinstance(scan.build([good, bad], wanted), scan.Incomplete)
    assert isinstance(scan.build([bad, good], wanted), scan.Incomplete)
    assert isinstance(scan.build([good], wanted), scan.Scan)


def test_entries_of_all_lengths_and_orders_are_found() -> None:
    """Of 3,000 tokens those are missing that no entry has: whether all entries begin with an ID, or some do not."""
    tokens = [os.urandom(28) for _ in range(3000)]
    entries = [
        Entry(token, number % 3, contained_in_owned=[OTHER] * (number % 4))
        for number, token in enumerate(tokens[1000:])
    ]
    rows = [entry.row for entry in entries]
    assert answer.missing(tokens, answer.ids(rows)) == set(tokens[:1000])
    other_order = [pickle.dumps(Entry(b"")), *rows[:500], pickle.dumps(entries[500]), *rows[501:]]
    found = answer.ids(other_order)
    assert answer.missing(tokens, found) == set(tokens[:1000])
    assert [one for one, _ in answer.each(other_order, found)][1:] == tokens[1000:]
    assert answer.missing(tokens, answer.ids([])) == set(tokens)
    assert answer.missing([], found) == set()


@pytest.mark.parametrize("at", range(28))
def test_a_token_that_differs_in_one_byte_is_missing(at: int) -> None:
    other = TOKEN[:at] + bytes([TOKEN[at] ^ 0x80]) + TOKEN[at + 1 :]
    ids = answer.ids([Entry(other).row])
    assert answer.missing([TOKEN, other], ids) == {TOKEN}
