"""A process is killed at each store to shared metadata and each change of the state directory; then all must be well.

What "well" is: worker.c, check() and audit(). Nothing sealed and undeleted is lost, nothing else appears, fsck is clean, and once all is
deleted every page, slot, chunk and arena is free again.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from crash.conftest import Crash, Result

DAMAGED = "the record was damaged meanwhile: tests/native/test_store.c"
FORMAT = "the killing of a format is tests/native/test_format.c"
FLAW = "bytes of an object of its own, and only where the test itself is tested: tests/native/test_litmus.c"
# Places that a script with a fixed interleaving cannot reach: (function, text of the line) to why.
UNREACHED = {
    (
        "chunk_pending_locked",
        "loc_or(&control->pending, 1ull << i);",
    ): "a race: asked again, of a later object, meanwhile",
    (
        "ring_send_outbound",
        "loc_or(&control->pending, 1ull << i);",
    ): "a race: asked again, of a later object, meanwhile",
    (
        "rival_won",
        "if (loc_cas(naming, &seen, (uint8_t)HOST_NAMING_NONE) || seen != HOST_NAMING_WON)",
    ): "two that seal one name at the same moment: tests/native/test_names.c",
    ("chunk_claim_locked", "loc_store(&control->claim, (uint64_t)0);"): "the header is damaged: tests/fuzz",
    ("quota_tick", "loc_store(&h->lease_stop, (uint64_t)0);"): "two seconds after the last wish: the cases are shorter",
    ("quota_tick", "loc_store(&h->wish_until_ns, (uint64_t)0);"): "two seconds after the last wish",
    ("forget_old_wish", "prim_store64(&lane->pages_wanted, 0);"): "after a second of waiting: the cases are shorter",
    (
        "activate",
        "(void)loc_cas(&h->leave_claim, &seen, (uint64_t)0);",
    ): "two deaths within microseconds, and a join: test_join.c",
    (
        "is_ours",
        "(void)loc_cas(&s->host.silence[lane].taking, &noted, (uint64_t)0);",
    ): "another host was faster, and a death within microseconds: tests/sim",
    ("step", "loc_store(&s->host.silence[host_id].taking, (uint64_t)0);"): "another host was faster: tests/sim",
    (
        "serve_lane",
        "(void)loc_cas(wanted, &seen, (uint64_t)0); /* its host is there again, and does it itself */",
    ): "its host came back just then: tests/sim",
    (
        "silence_look",
        "loc_store(&h->standing, (uint64_t)is);",
    ): "the host was fenced: tests/crash/test_stop_anywhere.py",
    ("silence_watch", "loc_store(&silence->samples, samples);"): "a host silent for seconds: the cases are shorter",
    ("restore_extent", "prim_store64(&shared->offset, object->handle.offset);"): DAMAGED,
    ("restore_extent", "prim_store64(&shared->length, draft_extent(object));"): DAMAGED,
    (
        "restore_extent",
        "prim_store64(word_of(shared, offsetof(struct fmt_slot, buffers) / 8), shape);",
    ): DAMAGED,
    ("format_opened", "GISMO_SITE(SHARED);"): FORMAT,
    ("erase_superblock", "prim_store64(&at->magic, 0);"): FORMAT,
    ("zero_and_flush", "GISMO_SITE(SHARED);"): FORMAT,
    ("write_superblock", "prim_store64(&to[i], words[i]);"): FORMAT,
    ("write_superblock", "prim_store64(&to[0], words[0]);"): FORMAT,
    ("tearing", "prim_store32(&halves[0], half);"): FLAW,
    ("tearing", "prim_store32(&halves[1], half);"): FLAW,
    ("return_empty_arenas", "loc_store(&unit->state, (uint32_t)HOST_UNIT_OWNED);"): "1,000 lost ballots in a row",
    ("return_empty_groups", "loc_store(&unit->state, (uint32_t)HOST_UNIT_OWNED);"): "1,000 lost ballots in a row",
}


class Kills:
    """Cases, and what came of them."""

    def __init__(self, crash: Crash, action: str = "kill") -> None:
        self.crash = crash
        self.action = action
        self.cases: list[tuple[str, int, int, int, str]] = []

    def add(self, scenario: str, site: int, nth: int, mode: int, before: str = "-") -> None:
        self.cases.append((scenario, site, nth, mode, before))

    def run(self, name: str) -> list[Result]:
        results = self.crash.run_all(self.action, self.cases)
        outcomes = dict(Counter(r.outcome for r in results))
        seconds = sum(r.seconds for r in results)
        print(f"\n{name}: {len(self.crash.sites)} sites, {len(results)} cases, {outcomes}, {seconds:.0f} s of one core")
        return results


def excused(crash: Crash) -> set[int]:
    found = {key: crash.find(key[0], key[1]) for key in UNREACHED}
    stale = [key for key, sites in found.items() if not sites]
    assert not stale, f"no such place any more: {stale}"
    return {site for sites in found.values() for site in sites}


def chosen(hits: int, rng: random.Random, extra: int) -> list[int]:
    """The first hit, the second, the last, and some between."""
    return sorted({1, min(2, hits), hits} | {rng.randint(1, hits) for _ in range(extra)})


def kill_anywhere(crash: Crash, extra: int, modes: int, deaths: int, nested: int) -> None:
    rng = random.Random(17)
    kills = Kills(crash)
    for scenario, sites in crash.hits.items():
        for site, hits in sites.items():
            for nth in chosen(hits, rng, extra):
                first = rng.randrange(3)
                for mode in range(modes):
                    kills.add(scenario, site, nth, (first + mode) % 3)
    # The same of a process that recovers others, so this is a second death during the recovery from the first.
    recoveries = crash.nested(crash.deaths(deaths, 29))
    seen: Counter[int] = Counter()
    places = [(before, site, hits) for before, sites in recoveries.items() for site, hits in sites.items()]
    rng.shuffle(places)
    for before, site, hits in sorted(places, key=lambda place: place[1]):
        if seen[site] < nested:
            seen[site] += 1
            kills.add("recover", site, rng.choice((1, hits, rng.randint(1, hits))), rng.randrange(3), before)
    results = kills.run("kill anywhere")
    crash.complain(results)
    killed = {r.case.site for r in results if r.outcome == "killed"}
    missed = [str(s) for s in crash.sites if s.number not in killed | excused(crash)]
    assert not missed, "no process died at:\n" + "\n".join(missed)
    left = {str(crash.sites[r.case.site]) for r in results if r.files_left and r.case.before == "-"}
    if left:
        print("files of the dead stay in the state directory after a death at:\n" + "\n".join(sorted(left)))


@pytest.mark.timeout(600)
def test_kill_anywhere(crash: Crash) -> None:
    kill_anywhere(crash, extra=0, modes=1, deaths=60, nested=4)


@pytest.mark.long
def test_kill_anywhere_all(crash: Crash) -> None:
    kill_anywhere(crash, extra=12, modes=3, deaths=1000, nested=60)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (0, "nothing found"),
        (1, "is lost"),
        (2, "is there although it was deleted"),
        (3, "has wrong content"),
        (4, "bytes leaked"),
        (5, "hold objects but are marked free"),
        (6, "is free, and lost"),
        (7, "is not found by its name"),
        (8, "the state directory says not ours"),
        (9, "being written by nobody"),
        (10, "do not go away"),
    ],
)
def test_the_check_can_fail(crash: Crash, kind: int, found: str) -> None:
    """The store, or the books about it, are spoilt in one way each; 0 spoils nothing."""
    assert found in crash.selftest(kind)
