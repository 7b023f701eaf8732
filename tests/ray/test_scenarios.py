"""Every scenario once, alone and with a kill, on a real cluster: nothing lost, nothing leaked. See ray_scenarios/."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gismo_core.ray import compat
from ray_scenarios import served, table

ALL = table.scenarios()
CASES = [
    pytest.param(
        name,
        kill,
        id=f"{name}-{re.sub('[, ]+', '_', kill) or 'alone'}",
        marks=[pytest.mark.long] if kill in scenario.long else [],
    )
    # Those of one kind of cluster together: another kind is another cluster.
    for name, scenario in sorted(ALL.items(), key=lambda item: item[1].kind)
    for kill in scenario.kills
]

pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Served]:
    """Made when first used; the logs of runs that were not good are left in pytest's folder."""
    made = served.Served(Path(tmp_path_factory.mktemp("scenarios")))
    yield made
    made.end()


@pytest.mark.parametrize(("name", "kill"), CASES)
def test_nothing_is_lost_and_nothing_leaks(clusters: served.Served, name: str, kill: str) -> None:
    outcome = clusters.run(ALL[name], kill, zlib.crc32(f"{name}{kill}".encode()))
    assert not outcome.broken, outcome.broken
    assert not outcome.lost, outcome.lost
    assert outcome.leaked == 0, outcome.notes


@pytest.mark.parametrize(
    ("name", "kill"),
    [
        ("driver_put_and_remote_read", "reader"),
        ("actor_return_outlives_the_actor", "actor"),
        ("slice_returned", "passer"),
        ("streaming_generator", "executor"),
        ("keeper_killed", "keeper"),
    ],
)
def test_the_oldest_ray(clusters: served.Served, name: str, kill: str) -> None:
    outcome = clusters.run(ALL[name], kill, 1, "oldest")
    assert outcome.good, outcome
    assert outcome.ray_version.startswith(".".join(map(str, compat.OLDEST)))


@pytest.mark.parametrize(
    ("rule", "name", "kill"),
    [
        ("undelivered", "reply_delayed_1500ms", "executor, token in hand"),
        ("one_scan", "handed_over_during_a_scan", ""),
        ("foreign", "slice_returned", ""),
        ("half", "actor_keeps_the_array", ""),
    ],
)
def test_a_keeper_without_a_rule_loses_values(clusters: served.Served, rule: str, name: str, kill: str) -> None:
    outcome = clusters.run(ALL[name], kill, 1, spoil=rule)
    assert outcome.lost, f"no loss was seen without the rule: {outcome}"


def test_a_leak_is_reported(clusters: served.Served) -> None:
    outcome = clusters.run(ALL["return_never_fetched"], "", 1, spoil="never")
    assert outcome.leaked == 8, outcome
    assert not outcome.lost
    assert not outcome.broken, outcome.broken


def test_values_that_take_rays_own_way_prove_nothing(clusters: served.Served) -> None:
    outcome = clusters.run(ALL["return_never_fetched"], "", 1, spoil="full")
    assert "8 records in the store" in outcome.broken, outcome
