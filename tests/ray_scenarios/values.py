"""Scenarios of values on their ways: put, return, argument, view, borrowed, nested, slice."""

from __future__ import annotations

from ray_scenarios import parts
from ray_scenarios.run import Run, all_done
from ray_scenarios.table import scenario


@scenario("reader")
def driver_put_and_remote_read(run: Run, kill: str) -> None:
    """What a driver puts is read by tasks on both nodes, one of which dies while it reads."""
    nbytes = run.size()
    seeds = run.seeds(6)
    refs = [run.ray.put(run.array(seed, nbytes)) for seed in seeds]
    run.records(len(refs))
    if kill:
        mark = run.path("reading")
        reader = run.task(parts.Part.check_slowly, 1, max_retries=3)  # a retry may meet the dead worker once more
        slow = reader.remote(None, refs[0], seeds[0], nbytes, 0.5, mark)
        run.kill(int(parts.await_file(mark)))
        run.settle()
        run.judge(run.get(slow, "read again after the reader was killed"), "read again")
    for node in (0, 1):
        task = run.task(parts.check, node)
        found = [task.remote(ref, seed, nbytes) for ref, seed in zip(refs, seeds, strict=True)]
        for text in run.ray.get(found, timeout=60):
            run.judge(text, f"put, read on node {node}")
    del refs[:3]
    run.settle()
    for ref, seed in zip(refs, seeds[3:], strict=True):
        run.read(ref, seed, nbytes, "put, others dropped")


@scenario("executor")
def return_never_fetched(run: Run, kill: str) -> None:
    """Nobody ever gets what tasks and an actor return; all of it goes."""
    nbytes = run.size()
    actor = run.part(1)
    refs = [actor.start("make", seed, nbytes) for seed in run.seeds(4)]
    refs += [run.task(parts.make).remote(seed, nbytes) for seed in run.seeds(4)]
    all_done(run.ray, refs)
    run.records(8)
    if kill:
        run.kill(actor)


@scenario("reader")
def view_outlives_the_ref(run: Run, kill: str) -> None:
    """Arrays, and a slice of one, are held after their references have gone: by the driver and by an actor."""
    nbytes = run.size()
    seeds = run.seeds(4)
    maker, holder = run.part(1), run.part(0)
    refs = [maker.start("make", seeds[0], nbytes), run.ray.put(run.array(seeds[1], nbytes))]
    refs.append(maker.start("make", seeds[2], nbytes))
    run.must(holder.call("keep", "held", refs[2]), "the return went through Ray's own store")
    values = run.ray.get(refs[:2])
    other = run.ray.put(run.array(seeds[3], nbytes))
    part = run.ray.get(other)[100:200]
    run.records(4)
    del refs, other
    run.settle()
    run.check(values[0], seeds[0], nbytes, "return, held by the driver")
    run.check(values[1], seeds[1], nbytes, "put, held by the driver")
    run.check(part, seeds[3], part.nbytes, "a slice held by the driver", start=100)
    if kill:
        run.kill(holder)
        run.await_death(holder)
    else:
        run.judge(holder.call("fault", "held", seeds[2], nbytes), "held by an actor")
        holder.call("drop")
    run.settle()
    run.check(values[0], seeds[0], nbytes, "held by the driver, after an actor let go")
    del values[0]
    run.records_fall_to(2, "one of three arrays dropped")
    run.check(values[0], seeds[1], nbytes, "the last whole array")
    run.check(part, seeds[3], part.nbytes, "the slice", start=100)


@scenario("actor")
def large_argument_by_value(run: Run, kill: str) -> None:
    """Arrays are passed by value to a task and to an actor, which keeps one and may die with more under way."""
    nbytes = run.size()
    seeds = run.seeds(5)
    actor = run.part(1)
    arrays = [run.array(seed, nbytes) for seed in seeds]
    run.judge(run.get(run.task(parts.check).remote(arrays[0], seeds[0], nbytes), "by value"), "by value, task")
    run.must(actor.call("keep", "kept", arrays[1]), "the argument went through Ray's own store")
    run.settle()
    run.judge(actor.call("fault", "kept", seeds[1], nbytes), "by value, kept by the actor")
    mark = run.path("busy")
    calls = [actor.start("check_slowly", arrays[2], seeds[2], nbytes, 0.5, mark)]
    calls += [actor.start("check", arrays[i], seeds[i], nbytes) for i in (3, 4)]  # wait in the actor's queue
    parts.await_file(mark)
    run.records(3)
    if kill:
        run.kill(actor)
    run.settle()
    for call in calls:
        run.judge(
            run.get(call, "by value, in the queue", (run.ray.exceptions.ActorDiedError,)), "by value, in the queue"
        )


@scenario("actor")
def actor_keeps_the_array(run: Run, kill: str) -> None:
    """Actors on both nodes keep arrays (returned, put, by value) of which no reference is left anywhere."""
    nbytes = run.size()
    actors = [run.part(0), run.part(1)]
    kept = []
    for actor in actors:
        maker = actors[1 - actor.node]
        seeds = run.seeds(3)
        values = [maker.start("make", seeds[0], nbytes), run.ray.put(run.array(seeds[1], nbytes))]
        run.keep(actor, values)
        actor.call("keep", "2", run.array(seeds[2], nbytes))
        kept += [(actor, f"{i}", seed) for i, seed in enumerate(seeds)]
        del values
    run.records(6)
    run.settle()
    run.settle()
    if kill:
        run.kill(actors[1])
        run.await_death(actors[1])
        run.records_fall_to(3, "what the killed actor kept is freed")
        run.settle()
    for actor, key, seed in kept:
        if actor.node >= 0:
            run.judge(actor.call("fault", key, seed, nbytes), f"kept by the actor on node {actor.node}")


@scenario("borrower", "owner")
def borrowed_ref(run: Run, kill: str) -> None:
    """An actor borrows references, whose owner lets go of them, and gets the arrays only then."""
    nbytes = run.size()
    owner, borrower, other = run.part(0), run.part(1), run.part(0)
    seeds = run.seeds(2)
    ref = run.ray.put(run.array(seeds[0], nbytes))
    run.ray.get(borrower.start("keep_ref", "driver's", [ref]))
    [inner] = owner.call("put", seeds[1], nbytes)
    run.ray.get([actor.start("keep_ref", "owner's", [inner]) for actor in (borrower, other)])
    del ref, inner
    run.records(2)
    run.settle()
    gone = (run.ray.exceptions.OwnerDiedError,)
    if kill == "owner":
        run.kill(owner)
        run.await_death(owner)
        run.settle()
    if kill == "borrower":
        run.kill(borrower)
        run.await_death(borrower)
        run.records_fall_to(1, "what only the killed borrower knew is freed")
    else:
        run.judge(run.get(borrower.start("fault_of_refs", "driver's", [seeds[0]], nbytes), "borrowed"), "borrowed")
    if kill == "owner":
        try:
            other.call("load_ref", "owner's")
            run.judge(other.call("fault", "owner's", seeds[1], nbytes), "borrowed, its owner dead")
        except run.ray.exceptions.RayTaskError as error:
            if type(error.cause) not in gone:
                raise
    else:
        other.call("load_ref", "owner's")
        run.settle()
        run.judge(other.call("fault", "owner's", seeds[1], nbytes), "borrowed, loaded, then let go")


@scenario("owner")
def nested_ref(run: Run, kill: str) -> None:
    """References within references, of the driver and of an actor."""
    nbytes = run.size()
    seeds = run.seeds(2)
    actor, reader = run.part(1), run.part(0)
    outer = run.ray.put([run.ray.put(run.array(seeds[0], nbytes))])
    [remote_outer] = actor.call("put_nested", seeds[1], nbytes)
    run.records(2)
    run.settle()
    run.judge(run.get(run.task(parts.check_refs, 1).remote(run.ray.get(outer), [seeds[0]], nbytes), "nested"), "nested")
    [remote_inner] = run.ray.get(remote_outer)
    del remote_outer
    run.settle()
    if kill:
        run.read(remote_inner, seeds[1], nbytes, "nested, of an actor")
        value = run.ray.get(remote_inner)
        run.ray.get(reader.start("keep", "held", remote_inner))
        run.kill(actor)
        run.await_death(actor)
        run.settle()
        run.check(value, seeds[1], nbytes, "nested, its owner dead, held by the driver")
        run.judge(reader.call("fault", "held", seeds[1], nbytes), "nested, its owner dead, held by an actor")
    else:
        run.read(remote_inner, seeds[1], nbytes, "nested, of an actor")
    [inner] = run.ray.get(outer)
    del outer
    run.settle()
    run.read(inner, seeds[0], nbytes, "nested, the outer reference gone")


@scenario("passer", "first reader")
def slice_returned(run: Run, kill: str) -> None:
    """A task and an actor return slices of their arguments, and slices of slices: the same extent passed on."""
    nbytes = 512 * 1024 + run.size() // 64 * 64  # so that a quarter of it is no small value either
    half, quarter = nbytes // 16, nbytes // 32
    seeds = run.seeds(2)
    passer = run.part(1)
    reader = run.part(0)
    ref = run.ray.put(run.array(seeds[0], nbytes))
    made = passer.start("make", seeds[1], nbytes)
    slices = [passer.start("pass_on", source, half, 2 * half) for source in (ref, made)]
    all_done(run.ray, slices)
    slices += [run.task(parts.Part.pass_on, 0).remote(None, slices[0], 0, quarter)]
    all_done(run.ray, slices)
    run.records(4)
    del ref, made
    run.settle()
    if kill == "passer":
        run.kill(passer)
        run.await_death(passer)
        run.settle()
    if kill == "first reader":
        run.ray.get(reader.start("keep", "slice", slices[0]))
        run.kill(reader)
        run.await_death(reader)
        run.settle()
    for i, seed in enumerate(seeds):
        run.read(slices[i], seed, half * 8, "a slice returned", start=half)
    run.read(slices[2], seeds[0], quarter * 8, "a slice of a slice", start=half)
    value = run.ray.get(slices[2])
    slices.clear()
    run.settle()
    run.check(value, seeds[0], quarter * 8, "a slice of a slice, held alone", start=half)
