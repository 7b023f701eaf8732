"""Scenarios of deaths: of readers, owners, and the keeper."""

from __future__ import annotations

from ray_scenarios import parts
from ray_scenarios.run import Run, all_done
from ray_scenarios.table import scenario
from ray_scenarios.talk import eventually


@scenario("reader", alone=False)
def reader_killed_while_holding(run: Run, kill: str) -> None:
    """Two actors hold the same arrays; one is killed."""
    assert kill == "reader"
    nbytes = run.size()
    seeds = run.seeds(3)
    maker, readers = run.part(1), [run.part(0), run.part(1)]
    refs = [maker.start("make", seeds[0], nbytes), run.ray.put(run.array(seeds[1], nbytes))]
    for reader in readers:
        run.keep(reader, refs)
    readers[0].call("keep", "alone", run.array(seeds[2], nbytes))
    run.records(3)
    run.kill(readers[0])
    run.await_death(readers[0])
    run.records_fall_to(2, "what only the killed reader held is freed")
    run.settle()
    for ref, seed in zip(refs, seeds[:2], strict=True):
        run.read(ref, seed, nbytes, "a reference, its first reader killed")
    refs.clear()
    del ref
    run.settle()
    for i in (0, 1):
        run.judge(readers[1].call("fault", f"{i}", seeds[i], nbytes), "held by the other reader")


@scenario("owner", alone=False)
def owner_actor_killed(run: Run, kill: str) -> None:
    """The actor that owns arrays (put, its tasks' returns) is killed; a driver and an actor hold them."""
    assert kill == "owner"
    nbytes = run.size()
    seeds = run.seeds(3)
    owner, holder = run.part(1), run.part(0)
    [ref] = owner.call("put", seeds[0], nbytes)
    value = run.ray.get(ref)
    run.ray.get(holder.start("keep", "put", ref))
    owner.call("submit", "own", [seeds[1]], nbytes, "node0", run.path("executor"))
    eventually(lambda: owner.call("unready", "own") == 0, "the return is there")
    owner.call("hand_over", "own", holder.handle, "return")
    [left] = owner.call("put", seeds[2], nbytes)
    run.records(3)
    run.kill(owner)
    run.await_death(owner)
    run.settle()
    run.read(left, seeds[2], nbytes, "never got, its owner dead", may_fail=(run.ray.exceptions.OwnerDiedError,))
    del ref, left
    run.records_fall_to(2, "what nobody holds is freed")
    run.settle()
    run.check(value, seeds[0], nbytes, "its owner dead, held by the driver")
    run.judge(holder.call("fault", "put", seeds[0], nbytes), "its owner dead, held by an actor")
    run.judge(holder.call("fault", "return", seeds[1], nbytes), "a return, its owner dead, held by an actor")


@scenario("keeper", alone=False)
def keeper_killed(run: Run, kill: str) -> None:
    """The keeper is killed: with its tokens in use, leased but unused, and while returns are made."""
    assert kill == "keeper"
    nbytes = run.size()
    seeds = run.seeds(10)
    maker, holder = run.part(1), run.part(0)
    refs = [maker.start("make", seed, nbytes) for seed in seeds[:3]]
    refs.append(run.ray.put(run.array(seeds[3], nbytes)))
    run.must(holder.call("keep", "held", refs.pop(0)), "the return went through Ray's own store")
    marks = run.path("executor")
    run.records(4)
    run.kill(run.keeper_pid())
    later = [maker.start("make", seed, nbytes) for seed in seeds[4:7]]  # with tokens that the dead keeper lent
    later += [run.task(parts.make, 0).remote(seed, nbytes, f"{marks}-{seed}") for seed in seeds[7:]]
    all_done(run.ray, later)
    run.records(7)
    dropped = later.pop(0)
    del dropped
    run.settle()
    run.judge(holder.call("fault", "held", seeds[0], nbytes), "held, its keeper killed")
    for ref, seed in zip(refs, seeds[1:4], strict=True):
        run.read(ref, seed, nbytes, "made before the keeper was killed")
    for ref, seed in zip(later, seeds[5:], strict=True):
        run.read(ref, seed, nbytes, "made after the keeper was killed")
    refs.clear()
    run.settle()
    run.judge(holder.call("fault", "held", seeds[0], nbytes), "held, others freed by the new keeper")
    holder.call("drop")
    run.settle()  # nobody hears of a dead keeper's tokens; else the audit of every 30 s would see it
    run.records_fall_to(len(later), "a new keeper frees what the old one's tokens kept")
    later.clear()
    del ref
    run.settle()
