"""All processes of a host are stopped (SIGSTOP), one of them at a site; another host fences it, works on, and then it goes on.

What it still writes is in lines of its own: the whole medium is compared, line by line. Its next calls are Fenced, and the views that it had
are as they were. Then it is released, by each of the three proofs (P10 of FORMAT.md): nothing is lost, and all of it is used again.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from crash.conftest import Crash

SCENARIOS = ("own", "neighbour", "foreign", "lease", "litmus")
_CHANCES = 5


def fence_anywhere(crash: Crash, extra: int) -> None:
    rng = random.Random(29)
    # At each store to shared metadata. How the host stopped is proven in one of three ways, by turns.
    shared = {site.number for site in crash.sites if site.kind == "shared"}
    cases = [
        (scenario, site, nth, number % 3, "-")
        for scenario in SCENARIOS
        for site, hits in crash.hits[scenario].items()
        if site in shared
        for number, nth in enumerate(
            sorted({1, hits} | {rng.randint(1, hits) for _ in range(extra)}), rng.randint(0, 2)
        )
    ]
    results = crash.run_all("fence", cases)
    wanted = {case[1] for case in cases}
    reached = {r.case.site for r in results if r.outcome == "fenced"}
    for _ in range(_CHANCES):  # some are come by where two threads meet: not each time
        if missed := [case for case in cases if case[1] in wanted - reached]:
            results += crash.run_all("fence", missed)
            reached = {r.case.site for r in results if r.outcome == "fenced"}
    crash.complain(results)
    outcomes = Counter(r.outcome for r in results)
    print(
        f"\nfence anywhere: {len(results)} cases, {dict(outcomes)}, {len(reached)} of {len(shared)} places that store to shared metadata"
    )
    assert reached == wanted
    assert {r.case.mode for r in results if r.outcome == "fenced"} == {0, 1, 2}


@pytest.mark.timeout(600)
def test_fence_anywhere(crash: Crash) -> None:
    fence_anywhere(crash, extra=0)


@pytest.mark.long
def test_fence_anywhere_all(crash: Crash) -> None:
    fence_anywhere(crash, extra=10)
