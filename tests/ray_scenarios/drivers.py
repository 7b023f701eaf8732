"""Scenarios of other drivers, other clusters, and forks."""

from __future__ import annotations

import os
import signal
import time

from ray_scenarios import parts
from ray_scenarios.run import Run, all_done
from ray_scenarios.table import scenario


@scenario("driver")
def driver_without_gismo(run: Run, kill: str) -> None:
    """A driver that has the package and the pool but no hook: it reads records, and writes to Ray's own store."""
    nbytes = run.size()
    seeds = run.seeds(8)
    driver = run.driver(GISMO_DISABLE="1")
    run.must(not driver.call("has_hook"), "the driver has the hook")
    driver.call("submit", seeds=seeds, nbytes=nbytes, node="node1")
    run.records(len(seeds))
    run.settle()
    run.judge(driver.call("check_elsewhere", node="node0"), "submitted by a driver without the hook, read by tasks")
    driver.call("load")
    run.must(driver.call("in_pool") == len(seeds), "the arrays lie elsewhere")
    run.settle()
    run.judge(driver.call("faults"), "held by a driver without the hook")
    own = run.seeds(2)
    if kill:
        driver.kill()
    else:
        driver.call("drop")
        run.records_fall_to(0, "what a driver without the hook drops is freed")
        driver.call("put", seeds=own, nbytes=nbytes)
        run.judge(driver.call("check_elsewhere", node="node0"), "put by a driver without the hook")
        driver.call("drop")


@scenario("driver", alone=False)
def driver_killed(run: Run, kill: str) -> None:
    """A driver is killed: what an actor of another job got from it stays, the rest goes."""
    assert kill == "driver"
    nbytes = run.size()
    seeds = run.seeds(4)
    driver = run.driver()
    name = f"lent-{run.seed()}"
    actor = run.part(1, name=name)
    driver.call("put", seeds=seeds[:2], nbytes=nbytes)
    driver.call("lend", actor=name)
    driver.call("submit", seeds=seeds[2:], nbytes=nbytes, node="node1")
    driver.call("lend", actor=name)
    driver.call("put", seeds=run.seeds(3), nbytes=nbytes)
    run.records(7)
    driver.kill()
    run.records_fall_to(4, "what only the killed driver had is freed")
    run.settle()
    for seed in seeds:
        run.judge(actor.call("fault", str(seed), seed, nbytes), "lent by a driver that was killed")


@scenario("driver")
def detached_actor_after_its_driver(run: Run, kill: str) -> None:
    """A detached actor goes on making arrays when the driver that made it has ended, or was killed."""
    nbytes = run.size()
    seeds = run.seeds(4)
    name = f"detached-{run.seed()}"
    driver = run.driver()
    driver.call("make_actor", name=name, node="node1")
    actor = run.ray.get_actor(name)
    early = actor.make.remote(seeds[0], nbytes)
    all_done(run.ray, [early])
    if kill:
        driver.kill()
    else:
        driver.end()
    time.sleep(0.2)
    refs = [early, *(actor.make.remote(seed, nbytes) for seed in seeds[1:3])]
    refs += run.ray.get(actor.put.remote(seeds[3], nbytes))
    all_done(run.ray, refs)
    run.records(4)
    run.settle()
    for ref, seed in zip(refs, seeds, strict=True):
        run.read(ref, seed, nbytes, "made by a detached actor, its driver gone")
    refs.clear()
    del ref, early
    run.records_fall_to(0, "what a detached actor made is freed when dropped")
    run.ray.kill(actor)


@scenario("driver")
def driver_stopped_during_a_return(run: Run, kill: str) -> None:
    """A driver gets a SIGSTOP while its tasks return; it goes on, or is killed as it stands."""
    nbytes = run.size()
    seeds = run.seeds(4)
    driver = run.driver()
    marks = run.path("executor")
    driver.call("submit", seeds=seeds, nbytes=nbytes, node="node1", marks=marks, pause_s=0.5)
    for seed in seeds:
        parts.await_file(f"{marks}-{seed}")
    os.kill(driver.pid, signal.SIGSTOP)
    try:
        run.records(len(seeds))
        run.settle(complete=False)
        time.sleep(1.0)
    finally:
        if kill:
            driver.kill()
        else:
            os.kill(driver.pid, signal.SIGCONT)
    if not kill:
        run.settle()
        run.judge(driver.call("faults"), "returned while the driver was stopped")
        driver.call("load")
        run.settle()
        run.judge(driver.call("faults"), "returned while the driver was stopped, then held")
        driver.call("drop")


@scenario()
def two_clusters_on_one_pool(run: Run, kill: str) -> None:
    """Another Ray cluster writes to the same pool: each frees its own records, and only those."""
    assert not kill
    nbytes = run.size()
    mine, theirs = run.seeds(4), run.seeds(4)
    other = run.driver(address="local")
    other.call("put", seeds=theirs[:2], nbytes=nbytes)
    other.call("load")
    refs = [run.ray.put(run.array(seed, nbytes)) for seed in mine[:2]]
    refs += [run.task(parts.make, 1).remote(seed, nbytes) for seed in mine[2:]]
    all_done(run.ray, refs)
    run.records(6)
    run.settle()
    run.settle()
    run.judge(other.call("faults"), "of the other cluster")
    other.call("submit", seeds=theirs, nbytes=nbytes, node="node0")
    run.settle()
    run.judge(other.call("check_elsewhere", node="node1"), "of the other cluster, in its tasks")
    for ref, seed in zip(refs, mine, strict=True):
        run.read(ref, seed, nbytes, "of this cluster")
    other.call("drop")
    run.records_fall_to(len(refs), "the other cluster frees what it drops")
    run.settle()
    for ref, seed in zip(refs, mine, strict=True):
        run.read(ref, seed, nbytes, "of this cluster, the other's freed")


@scenario("parent")
def fork_in_a_task(run: Run, kill: str) -> None:
    """A task forks: the child drops its copy of the array; or keeps it when the parent is killed."""
    nbytes = run.size()
    seed = run.seed()
    ref = run.ray.put(run.array(seed, nbytes))
    actor = run.part(run.near())  # the child has only a pin, and the pins of other hosts the keeper leaves to the store
    run.judge(run.get(actor.start("fork_and_drop", ref, seed, nbytes), "forked"), "a view dropped in a forked child")
    actor.call("keep", "kept", ref)
    go, verdict = run.path("go"), run.path("verdict")
    actor.call("fork_and_keep", "kept", seed, nbytes, go, verdict)
    run.records(1)
    run.settle()
    if kill:
        # The child has the parent's sockets, so Ray sees no death, and no scan is complete, until the child ends.
        run.kill(actor)
    else:
        run.judge(actor.call("fault", "kept", seed, nbytes), "held by the parent")
        actor.call("drop")
    run.read(ref, seed, nbytes, "a reference, the forked reader gone")
    del ref
    run.settle(complete=not kill)
    parts.say(go)
    run.verdict(verdict, "held by a forked child")
    run.settle(complete=not kill)  # nobody proposes when a pin goes; else the audit of every 30 s would see it
