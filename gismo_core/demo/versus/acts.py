"""What both clusters are asked to do: the acts of the demo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gismo_core.bench.clusters import processes
from gismo_core.bench.clusters.side import Side
from gismo_core.cli.output import size_text
from gismo_core.demo.versus.plan import Plan

Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Act:
    """One piece of work. seconds: the fields of the answer that count, added up.

    warm_ups: times that do not count, the same in both clusters. The first time of all, workers start and import what the
    work needs, and touch memory that nobody has touched before, which on some virtual machines takes seconds per GiB.
    warming: what is given to these in the place of arguments of the same name; half of the work is enough for all that.
    """

    name: str
    title: str
    work: str
    arguments: Arguments
    seconds: tuple[str, ...]
    prepare: str | None = None
    preparing: Arguments = field(default_factory=dict)
    warm_ups: int = 0
    warming: Arguments = field(default_factory=dict)
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class Took:
    """What an act took in one cluster: median seconds; the rest of the slowest time that it was done."""

    seconds: float
    cpu_s: float
    network_bytes: int
    peak_bytes: int
    """Of the pool and all plasma stores, in use."""
    spilled_bytes: int


def acts(plan: Plan) -> tuple[Act, ...]:
    """In the order in which they are played."""
    unit = size_text(plan.object_bytes)
    get = {"nbytes": plan.object_bytes, "count": 1}
    return (
        Act(
            "get",
            f"get {unit} of another node, mapped",
            "transfer.get",
            {"whole": False},
            ("get_s", "read_s"),
            "transfer.prepare_get",
            get,
            warm_ups=1,
            repeats=plan.repeats,
        ),
        Act(
            "get_read",
            f"get {unit} of another node, read through",
            "transfer.get",
            {"whole": True},
            ("get_s", "read_s"),
            "transfer.prepare_get",
            get,
            warm_ups=1,
            repeats=plan.repeats,
        ),
        Act(
            "broadcast",
            f"{unit} to all {plan.shape.nodes} nodes",
            "transfer.broadcast",
            {},
            ("broadcast_s",),
            "transfer.prepare_broadcast",
            {"nbytes": plan.object_bytes},
            warm_ups=1,
            repeats=plan.repeats,
        ),
        Act(
            "shuffle",
            f"shuffle, {plan.partitions} x {plan.partition_bytes // 1_000_000} MB",
            "jobs.shuffle",
            {"partitions": plan.partitions, "partition_bytes": plan.partition_bytes},
            ("shuffle_s",),
            warm_ups=1,
            warming={"partition_bytes": plan.partition_bytes // 2},
        ),
        Act(
            "sort",
            f"Ray Data sort, {size_text(plan.dataset_bytes)}",
            "dataset.sort",
            {"nbytes": plan.dataset_bytes, "blocks": plan.blocks},
            ("seconds",),
            # All of it: else what counts is the memory of a machine that touches it for the first time (docs/results.md).
            warm_ups=1,
        ),
        Act(
            "pipeline",
            f"pipeline of actors, {plan.batches} tables of {size_text(plan.table_bytes)}",
            "pipeline.run",
            {"nbytes": plan.table_bytes, "batches": plan.batches},
            ("pipeline_s",),
            warm_ups=1,
            warming={"batches": (plan.batches + 1) // 2},
        ),
    )


def play(side: Side, act: Act, step: Callable[[int], None]) -> Took:
    """One act in one cluster; step(done) after each time."""
    taken: list[Took] = []
    for turn in range(act.warm_ups + act.repeats):
        if act.prepare is not None:
            side.ask(act.prepare, **act.preparing)
        arguments = act.arguments if turn >= act.warm_ups else act.arguments | act.warming
        network = network_bytes()
        found, cpu_s = side.measured("watching.watch", what=act.work, arguments=arguments)
        network = network_bytes() - network
        side.ask("transfer.drop")
        step(turn + 1)
        if turn >= act.warm_ups:
            seconds = sum(found["answer"][name] for name in act.seconds)
            taken.append(Took(seconds, cpu_s, network, found["peak_bytes"], found["spilled_bytes"]))
    taken.sort(key=lambda one: one.seconds)
    slowest = taken[-1]
    return Took(
        taken[len(taken) // 2].seconds,
        slowest.cpu_s,
        slowest.network_bytes,
        slowest.peak_bytes,
        slowest.spilled_bytes,
    )


def network_bytes() -> int:
    """Bytes over the loopback device so far: the network between nodes that are all on this machine."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "lo":
            return int(rest.split()[0])
    return 0


def processes_of(side: Side) -> list[int]:
    """Everything that runs for a cluster."""
    return processes.descendants(side.process.pid)
