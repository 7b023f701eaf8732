"""Scenarios of many objects and little room."""

from __future__ import annotations

from ray_scenarios import parts, pattern
from ray_scenarios.run import KiB, Run, all_done
from ray_scenarios.table import scenario

_MIB = KiB * KiB


@scenario("executor")
def pool_full_with_results_held(run: Run, kill: str) -> None:
    """Results go to Ray's own store because the pool is full; held, they keep no dead inputs in the pool."""
    nbytes = 2 * _MIB - 64 * KiB
    count = 12
    maker = run.part(1)
    run.fill((count + 3) * nbytes, maker)
    seeds = run.seeds(count)
    inputs = [maker.start("make", seed, nbytes) for seed in seeds]
    all_done(run.ray, inputs)
    run.records(count)
    run.fill(0, maker)
    marks = run.path("runs")
    task = run.task(parts.shift, 1)
    results = [task.remote(ref, seed, nbytes, f"{marks}-{seed}") for ref, seed in zip(inputs, seeds, strict=True)]
    all_done(run.ray, results)
    run.must(run.cluster.records() <= count, "there was room for the results in the pool")
    inputs.clear()
    run.records_fall_to(0, "dead inputs of results in Ray's own store are freed")
    if kill:
        for pid in {int(parts.await_file(f"{marks}-{seed}").split()[-1]) for seed in seeds}:
            try:
                run.kill(pid)
            except ProcessLookupError:
                pass  # Ray had no more use for it
    for ref, seed in zip(results, seeds, strict=True):
        run.read(ref, seed + pattern.SHIFT, nbytes, "a result in Ray's own store")
    again = maker.start("make", seeds[0], nbytes)
    run.records(1)
    run.read(again, seeds[0], nbytes, "made in freed room")
    run.let_go_of_ballast()


@scenario("workers")
def soak(run: Run, kill: str) -> None:
    """20 rounds of 160 objects, put, passed by value, returned, yielded, passed on; a worker dies in some rounds."""
    nbytes = 112 * KiB
    parts_ = [run.part(0), run.part(1)]
    held: list[tuple[object, int]] = []
    for turn in range(20):
        begun: list[tuple[object, int]] = []
        for actor in parts_:
            seeds = run.seeds(40)
            refs = actor.start("make_many", seeds, nbytes, num_returns=len(seeds))
            begun += zip(refs, seeds, strict=True)
        seeds = run.seeds(40)
        begun += ((run.ray.put(run.array(seed, nbytes)), seed) for seed in seeds)
        seeds = run.seeds(20)
        stream = parts_[turn % 2].start("stream", seeds, nbytes, num_returns="streaming")
        begun += zip(stream, seeds, strict=True)
        checks = [
            parts_[i % 2].start("check", run.array(seed, nbytes), seed, nbytes) for i, seed in enumerate(run.seeds(20))
        ]
        all_done(run.ray, [ref for ref, _ in begun])
        run.records(40)
        if kill and turn % 5 == 2:
            run.ray.get(checks)
            run.kill(parts_[1])
            parts_[1] = run.part(1)
        for i, (ref, seed) in enumerate(begun):
            if run.random.random() < 0.3:
                checks.append(parts_[i % 2].start("check", ref, seed, nbytes))
            elif run.random.random() < 0.3:
                run.read(ref, seed, nbytes, f"round {turn}")
        for text in run.ray.get(checks):
            run.judge(text, f"round {turn}, by an actor")
        for ref, seed in held:
            run.read(ref, seed, nbytes, f"kept over a round, {turn}")
        held = run.random.sample(begun, 16)
    held.clear()
