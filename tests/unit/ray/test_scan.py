"""A scan out of raylets' answers, without Ray: what is missing in an answer makes it say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from gismo_core.ray import scan

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


@dataclass
class Worker:
    """As Ray's CoreWorkerStats."""

    worker_id: bytes
    object_refs: list[Entry] = field(default_factory=list)
    objects_total: int = -1

    def __post_init__(self) -> None:
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
    assert (set(seen.listed), seen.counted, set(seen.tasks)) == (set(), {}, set())
    assert seen.entries == (1,)


@pytest.mark.parametrize(
    "entry", [Entry(TOKEN, 1), Entry(TOKEN, 0, 1), Entry(TOKEN, 0, 0, [OTHER])], ids=["local", "submitted", "contained"]
)
def test_an_entry_with_references_counts(entry: Entry) -> None:
    seen = build(Reply([Worker(W1, [entry])]), Reply([Worker(W2)]))
    assert seen.counted == {TOKEN: {W1}}
    assert set(seen.listed) == {TOKEN}


def test_an_entry_without_references_is_listed_only() -> None:
    seen = build(Reply([Worker(W1, [Entry(TOKEN)])]))
    assert seen.counted == {}
    assert set(seen.listed) == {TOKEN}


def test_all_workers_of_all_nodes_are_told() -> None:
    seen = build(Reply([Worker(W1, [Entry(TOKEN, 1)])]), Reply([Worker(W2, [Entry(TOKEN, 1)])]))
    assert seen.counted == {TOKEN: {W1, W2}}


def test_what_is_not_weighed_is_listed_only() -> None:
    seen = build(Reply([Worker(W1, [Entry(TOKEN, 1)])]), weighed=())
    assert seen.counted == {}
    assert set(seen.listed) == {TOKEN}


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
