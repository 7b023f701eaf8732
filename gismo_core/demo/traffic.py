"""Act: every host writes, and reads what the others write."""

from __future__ import annotations

import time
from typing import Any

from gismo_core.demo.fleet import Fleet, HostSample, Sample
from gismo_core.demo.stage import Stage, count

COLUMNS = ("host", ">puts/s", ">gets/s", ">GB/s", ">objects", ">pins")
_FRAME_S = 0.25


def rates(before: Sample, now: Sample) -> list[dict[str, float]]:
    """Per host, between two samples; gb_per_s: bytes put and bytes got."""
    elapsed_s = max(1e-9, now.at_s - before.at_s)

    def one(old: HostSample, new: HostSample) -> dict[str, float]:
        return {
            "puts_per_s": (new.puts - old.puts) / elapsed_s,
            "gets_per_s": (new.gets - old.gets) / elapsed_s,
            "gb_per_s": (new.put_bytes - old.put_bytes + new.get_bytes - old.get_bytes) / elapsed_s / 1e9,
            "objects": new.objects,
            "pins": new.pins,
        }

    return [one(old, new) for old, new in zip(before.hosts, now.hosts, strict=True)]


def rows(fleet: Fleet, before: Sample, now: Sample) -> list[tuple[str, ...]]:
    """Of the live table, with a line for all."""
    seen = rates(before, now)
    total = {name: sum(one[name] for one in seen) for name in seen[0]}
    labels = [f"host {host.number} (lane {host.lane})" for host in fleet.hosts]
    return [
        (
            label,
            count(one["puts_per_s"]),
            count(one["gets_per_s"]),
            f"{one['gb_per_s']:.2f}",
            count(one["objects"]),
            count(one["pins"]),
        )
        for label, one in zip([*labels, "all"], [*seen, total], strict=True)
    ]


def watch(stage: Stage, fleet: Fleet, seconds: float) -> tuple[Sample, Sample]:
    """Show the live table for so long; the first and the last sample. The table that stays has the means."""
    first = before = fleet.sample()
    with stage.screen.live() as show:
        while True:
            left_s = first.at_s + seconds - time.monotonic()
            time.sleep(max(0.0, min(_FRAME_S, left_s)))
            fleet.check_alive()
            now = fleet.sample()
            if left_s <= _FRAME_S:
                show(COLUMNS, rows(fleet, first, now))
                return first, now
            show(COLUMNS, rows(fleet, before, now))
            before = now


def play(stage: Stage, fleet: Fleet) -> None:
    """Run, watch, pause, and ask the readers what they compared."""
    plan = stage.plan
    stage.screen.act(
        f"{plan.hosts} hosts, each a writer and a reader: named objects of 64 B to {plan.largest_bytes >> 10} KiB, "
        "read by the other hosts"
    )
    fleet.tell("run")
    first, last = watch(stage, fleet, plan.traffic_s)
    fleet.tell("pause", [host.writer for host in fleet.hosts])
    said = fleet.tell("pause", fleet.readers)
    means = rates(first, last)
    total = {name: sum(one[name] for one in means) for name in ("puts_per_s", "gets_per_s", "gb_per_s")}
    stage.note("traffic", seconds=last.at_s - first.at_s, hosts=means, total=total)
    judge_readers(stage, "traffic", said)
    stage.expect(
        "each host wrote, and read from each other host",
        all(one["puts_per_s"] > 0 for one in means) and all(all(one["right"].values()) for one in said),
        f"{count(min(one['puts_per_s'] for one in means))} puts/s at least, "
        f"{count(min(min(one['right'].values()) for one in said))} objects of one host by another at least",
    )
    stage.conclude(
        f"{plan.hosts} hosts together",
        f"{count(total['puts_per_s'])} puts/s, {count(total['gets_per_s'])} gets/s, {total['gb_per_s']:.1f} GB/s",
    )


def judge_readers(stage: Stage, act: str, said: list[dict[str, Any]]) -> None:
    """Counts since the start, as each reader told them."""
    right = sum(sum(one["right"].values()) for one in said)
    wrong = sum(one["wrong"] for one in said)
    nbytes = sum(one["nbytes"] for one in said)
    stage.note(act, compared_objects=right, compared_bytes=nbytes, wrong_objects=wrong)
    example = next((one["first_wrong"] for one in said if one["first_wrong"]), None)
    stage.expect(
        "every object that was read held what its writer put, byte by byte",
        wrong == 0 and right > 0,
        f"{count(right)} objects, {nbytes / 1e9:.1f} GB compared" if not wrong else f"{wrong} wrong, first {example}",
    )
