"""The core over memory that is not coherent: tests/sim, a program that is built here. `gismo-sim --help` says what it can do.

A violation prints its seed and the last steps of each host; `gismo-sim replay` shows all of them.
"""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

import pytest

from native_build import built

# Flushes, invalidations and fences that are left out, one at a time: each must be found. FILE:FUNCTION, what is done to it, how many places.
# `gismo-sim mutants` tries all places and all that can be done to them.
MUTANTS = [
    ("store.c:pin", "delete", 2),
    ("store.c:get", "delete-fence", 3),
    ("chunk.c:pinned_elsewhere", "delete", 2),
    ("object.c:seal", "delete", 1),
    ("object.c:seal", "drop-last", 1),
    ("world.c:copy_payload", "cached", 1),
    ("agree.c:write_line", "delete", 2),
    ("lane.c:take_lane", "delete", 1),
    ("chunk.c:chunk_rebuild", "delete", 1),
    ("unit.c:unit_lease", "delete", 1),
    ("unit.c:open_group", "delete", 2),
    ("litmus.c:dekker", "delete", 2),
    ("litmus.c:look", "delete-fence", 1),
    ("litmus.c:send_payload", "delete", 1),
    ("verdict.c:write_verdict", "delete", 1),
]


# Small enough for all schedules with few preemptions.
SMALL = ["pin", "clear", "ask", "name", "lease"]


@functools.cache
def simulator() -> Path:
    return built("plain", "gismo-sim")


def run(*arguments: str, limit_s: float = 280) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(simulator()), *arguments], capture_output=True, text=True, timeout=limit_s, check=False)


run_once = functools.cache(run)  # what takes long and is looked at by more than one test; a run is the same each time


def scenarios() -> list[str]:
    return [
        "race",
        "move",
        "share",
        "reuse",
        "pressure",
        "names",
        "deaths",
        "restarts",
        "look",
        "silence",
        "litmus",
        "told",
        *SMALL,
        "leave",
    ]


def test_the_list_of_scenarios_is_whole() -> None:
    listed = re.findall(r"^  (\w+) ", run("--help").stdout.partition("scenarios:")[2], re.MULTILINE)
    assert listed == scenarios()


@pytest.mark.parametrize("scenario", scenarios())
def test_no_violation(scenario: str) -> None:
    done = run("run", "--scenario", scenario, "--runs", "15")
    assert done.returncode == 0, done.stderr
    assert "60 runs" in done.stdout  # each seed under four adversaries


@pytest.mark.parametrize(("place", "operator", "count"), MUTANTS)
def test_a_flush_that_is_missing_is_found(place: str, operator: str, count: int) -> None:
    done = run("mutants", "--in", place, "--operator", operator, "--seconds", "60")
    assert f"{count} of {count} mutants caught" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("place", "operator", "scenario", "says"),
    [
        (
            "chunk.c:chunk_draft_to_deleted",
            "delete",
            "names",
            r"a call of host \d ends, and what it stored is still (in its cache|on its way)",
        ),
        ("internal.h:lane_state_word", "delete", "race", r"host \d loads what was old already when its call began"),
    ],
)
def test_what_a_call_owes_is_asked_for(place: str, operator: str, scenario: str, says: str) -> None:
    done = run("run", "--scenario", scenario, "--break", place, "--operator", operator, "--runs", "200")
    assert re.search(says, done.stderr), done.stdout + done.stderr


def test_no_violation_in_any_schedule_with_one_preemption() -> None:
    done = run("explore", "--preemptions", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    tried = re.findall(r"^(\w+)/(\w+)/\d +(\d+) schedules", done.stdout, re.MULTILINE)
    assert {scenario for scenario, _, _ in tried} == set(SMALL)
    assert {adversary for _, adversary, _ in tried} == {"lazy", "eager", "coherent"}
    assert all(int(count) > 50 for _, _, count in tried)


def test_no_violation_wherever_a_process_dies() -> None:
    done = run("explore", "--preemptions", "1", "--kills")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(map(int, re.findall(r"(\d+) schedules", done.stdout))) > 10_000


def test_no_violation_in_any_schedule_of_a_get_and_a_delete_with_two_preemptions() -> None:
    done = run_once("explore", "--scenario", "pin", "--preemptions", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(map(int, re.findall(r"(\d+) schedules", done.stdout))) > 5_000


@pytest.mark.long
def test_no_violation_in_any_schedule_with_two_preemptions_or_a_death() -> None:
    done = run("explore", "--preemptions", "2", "--kills", limit_s=3600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_schedule_that_fails_is_named_and_fails_again() -> None:
    broken = ("--break", "store.c:pin", "--operator", "delete")
    done = run("explore", "--scenario", "pin", *broken)
    assert done.returncode == 1
    (name,) = re.findall(r"^VIOLATION in (pin/\w+/\d/[\d:,]+) after", done.stderr, re.MULTILINE)
    again = run("replay", name, *broken)
    assert again.returncode == 1
    assert f"VIOLATION in {name} after" in again.stderr
    assert run("replay", name).returncode == 0  # and does not with all that belongs there


def test_a_run_is_the_same_each_time() -> None:
    first, second = (run("replay", "share/random/3") for _ in range(2))
    assert first.returncode == 0
    assert len(first.stderr) > 100_000
    assert first.stderr == second.stderr


def test_a_violation_shows_the_last_steps_of_each_host_and_how_to_see_it_again() -> None:
    done = run("run", "--break", "store.c:pin", "--operator", "delete", "--scenario", "race", "--runs", "50")
    assert done.returncode == 1
    assert re.search(r"^VIOLATION in race/\w+/\d+ after \d+ steps: ", done.stderr, re.MULTILINE)
    assert "steps of host 0:" in done.stderr
    assert "steps of host 1:" in done.stderr
    assert re.search(r"host 1 process \d+ +get +load +slot \d+ word|host 1 process \d+ +read +read +data", done.stderr)
    assert re.search(r"gismo-sim replay race/\w+/\d+", done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--scenario", "nonsense"],
        ["replay", "x"],
        ["nonsense"],
        [],
        ["mutants", "--in", "no.c"],
        ["explore", "--preemptions", "4"],
        ["explore", "--scenario", "race"],
        ["replay", "pin/lazy/1/x"],
    ],
)
def test_bad_arguments_are_refused(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "gismo-sim" in done.stderr


def commands_of_the_docs() -> list[list[str]]:
    text = (Path(__file__).resolve().parents[2] / "docs" / "coherence.md").read_text()
    return [line.split()[1:] for line in text.splitlines() if line.startswith("    gismo-sim ")]


@pytest.mark.parametrize("command", commands_of_the_docs(), ids=" ".join)
def test_the_commands_of_the_docs_work(command: list[str]) -> None:
    if command[0] == "mutants":  # those of one primitive are enough here, and each is found at once
        command = [*command, "--operator", "delete-fence"]
    done = run_once(*("5" if word == "1000" else word for word in command))
    assert done.returncode == 0, done.stdout + done.stderr
