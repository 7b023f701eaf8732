"""Scenarios of nodes: killed, frozen while their processes go on reading, and reconstruction."""

from __future__ import annotations

import os
import signal

from ray_scenarios import parts, pattern
from ray_scenarios.run import KiB, Run, all_done
from ray_scenarios.table import scenario
from ray_scenarios.talk import eventually


def _second_is_dead(run: Run) -> bool:
    return [node["Alive"] for node in run.ray.nodes()].count(True) == 1


@scenario("node", alone=False)
def node_killed(run: Run, kill: str) -> None:
    """All processes of a node are killed: what they made and others refer to stays, what they held goes."""
    assert kill == "node"
    nbytes = run.size()
    seeds = run.seeds(6)
    away, here = run.part(1), run.part(0)
    refs = [away.start("make", seed, nbytes) for seed in seeds[:2]]
    refs += [run.task(parts.make, 1).remote(seeds[2], nbytes)]
    run.must(here.call("keep", "held", refs.pop(0)), "the return went through Ray's own store")
    away.call("keep", "alone", run.array(seeds[3], nbytes))
    own = run.ray.put(run.array(seeds[4], nbytes))
    run.ray.get(away.start("keep", "too", own))
    all_done(run.ray, refs)
    run.records(5)
    run.cluster.kill_second()
    run.lose_node(1)
    try:
        eventually(lambda: _second_is_dead(run), "GCS sees that a node is dead")
        run.records_fall_to(4, "what only the killed node held is freed")
        run.settle()
        run.judge(here.call("fault", "held", seeds[0], nbytes), "made by a killed node, held elsewhere")
        for ref, seed in zip(refs, seeds[1:3], strict=True):
            run.read(ref, seed, nbytes, "made by a killed node")
        run.read(own, seeds[4], nbytes, "read by a killed node")
        here.call("drop")
        refs.clear()
        del own, ref
        run.settle()  # the keeper may have been on that node: nobody hears of a dead keeper's tokens
    finally:
        run.cluster.renew_second()


@scenario("node", alone=False)
def lineage_reconstruction(run: Run, kill: str) -> None:
    """A result in Ray's own store is lost with its node; Ray makes it again, from arguments in the pool."""
    assert kill == "node"
    nbytes = 256 * KiB + run.size() // 8 * 8
    seeds = run.seeds(2)
    counts = [run.path("runs"), run.path("runs")]
    # No hook there, so that the result is one of Ray's own store, with lineage.
    plain = {"env_vars": {"GISMO_DISABLE": "1"}}
    task = run.task(parts.shift, 1, max_retries=3, runtime_env=plain)
    put = run.ray.put(run.array(seeds[0], nbytes))
    made = run.part(0).start("make", seeds[1], nbytes)
    results = [task.remote(put, seeds[0], nbytes, counts[0])]
    run.records(2)
    all_done(run.ray, results)
    del put
    run.settle()
    run.cluster.kill_second()
    run.lose_node(1)
    run.cluster.renew_second()
    value = run.get(results[0], "a result made again")
    if value is not None:
        run.check(value, seeds[0] + pattern.SHIFT, nbytes, "a result made again")
    run.must(len(parts.await_file(counts[0]).split()) == 2, "the task did not run again")
    run.read(made, seeds[1], nbytes, "another")


@scenario("raylet", alone=False, kind="quick-death")
def node_frozen_and_still_reading(run: Run, kill: str) -> None:
    """A node's raylet freezes and GCS declares it dead; a process there goes on reading, and must read right."""
    assert kill == "raylet"
    nbytes = run.size()
    seeds = run.seeds(3)
    reader = run.part(1)
    refs = [run.ray.put(run.array(seeds[0], nbytes)), run.part(0).start("make", seeds[1], nbytes)]
    run.keep(reader, refs)
    stop, verdicts = run.path("stop"), [run.path("verdict"), run.path("verdict")]
    for i in (0, 1):
        reader.call("watch", f"{i}", seeds[i], nbytes, stop, verdicts[i])
    run.records(2)
    raylet = run.cluster.raylet(1)
    os.kill(raylet, signal.SIGSTOP)
    try:
        refs.clear()
        run.settle(complete=False)
        run.must(run.cluster.records() == 2, "something was freed while a node did not answer")
        eventually(lambda: _second_is_dead(run), "GCS declares the frozen node dead")
        # The owner of what was put still counts the reader, which lives: a return has nobody to count for it.
        run.records_fall_to(1, "the dead node does not keep returns from being freed")
        # Its room may not be used again while that process reads: other bytes take all that is free.
        run.fill(0, run.part(0))
        parts.say(stop)
        for verdict in verdicts:
            run.verdict(verdict, "read by a process of a node that was declared dead")
    finally:
        run.lose_node(1)
        run.cluster.kill_second()
        run.cluster.renew_second()
