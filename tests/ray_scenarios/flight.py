"""Scenarios of replies: while one is on the wire, its token is in nobody's table.

Delays are Ray's own (RAY_testing_asio_delay_us="METHOD=LEAST:MOST"), set where the reply or report is received.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial

from ray_scenarios import parts
from ray_scenarios.run import Proxy, Run, all_done
from ray_scenarios.table import scenario
from ray_scenarios.talk import eventually

_REPLY = "CoreWorkerService.grpc_client.PushTask"
# An executor that lets go of a token tells its owner, the keeper, who has it now, and the keeper tells that one: so the
# token stands in the receiver's table before the reply does. Not if the executor is killed with the token in hand.
_IN_HAND = "executor, token in hand"
_REPORT = "CoreWorkerService.grpc_server.ReportGeneratorItemReturns"


def _slow_owner(run: Run, method: str, delay_s: float) -> Proxy:
    """An actor that sees what others send it only after a while."""
    delay = f"{method}={delay_s * 1e6:.0f}:{delay_s * 1e6:.0f}"
    return run.part(0, runtime_env={"env_vars": {"RAY_testing_asio_delay_us": delay}})


def _delayed_replies(run: Run, kill: str, delay_s: float) -> None:
    owner = _slow_owner(run, _REPLY, delay_s)
    nbytes = run.size(512 * 1024)
    marks = run.path("executor")
    rounds = 1 if delay_s > 1 else 3
    for turn in range(rounds):
        key, seeds = f"round {turn}", run.seeds(4)
        owner.call("submit", key, seeds, nbytes, "node1", marks, 0.4, kill == _IN_HAND)
        executors = {int(parts.await_file(f"{marks}-{seed}")) for seed in seeds}
        run.records(len(seeds))
        time.sleep(min(0.05, delay_s / 4))  # the replies leave their executors
        if kill:
            for pid in executors:
                run.kill(pid)
        late = owner.call("unready", key)
        run.outcome.notes.append(f"{late} replies under way")
        run.must(late or delay_s < 1, "no reply was under way any more")
        end = time.monotonic() + delay_s
        while time.monotonic() < end:
            run.settle()
        run.judge(owner.call("fault_of_refs", key, seeds, nbytes), f"reply delayed {delay_s} s")
    owner.call("drop")


def _delayed_reports(run: Run, kill: str, delay_s: float) -> None:
    owner = _slow_owner(run, _REPORT, delay_s)
    nbytes = run.size(512 * 1024)
    marks = run.path("executor")
    rounds = 1 if delay_s > 1 else 3
    for turn in range(rounds):
        key, seeds, mark = f"round {turn}", run.seeds(4), f"{marks}-{turn}"
        owner.call("submit_stream", key, seeds, nbytes, "node1", mark)
        executor = int(parts.await_file(mark))
        run.records(len(seeds))
        time.sleep(min(0.05, delay_s / 4))
        if kill:
            run.kill(executor)
        end = time.monotonic() + delay_s
        while time.monotonic() < end:
            run.settle()
        run.judge(owner.call("fault_of_stream", key, seeds, nbytes), f"report delayed {delay_s} s")
    owner.call("drop")


@scenario("executor")
def reply_delayed_100ms(run: Run, kill: str) -> None:
    """Replies reach their owner 0.1 s late; the executors are killed meanwhile."""
    _delayed_replies(run, kill, 0.1)


@scenario("executor", _IN_HAND)
def reply_delayed_1500ms(run: Run, kill: str) -> None:
    """Replies reach their owner 1.5 s late."""
    _delayed_replies(run, kill, 1.5)


@scenario("executor", _IN_HAND, long=("", "executor", _IN_HAND))
def reply_delayed_5s(run: Run, kill: str) -> None:
    """Replies reach their owner 5 s late."""
    _delayed_replies(run, kill, 5.0)


@scenario("executor")
def report_delayed_100ms(run: Run, kill: str) -> None:
    """A generator's reports reach its owner 0.1 s late; the executor is killed meanwhile."""
    _delayed_reports(run, kill, 0.1)


@scenario("executor")
def report_delayed_1500ms(run: Run, kill: str) -> None:
    """A generator's reports reach its owner 1.5 s late."""
    _delayed_reports(run, kill, 1.5)


@scenario("executor", long=("", "executor"))
def report_delayed_5s(run: Run, kill: str) -> None:
    """A generator's reports reach its owner 5 s late."""
    _delayed_reports(run, kill, 5.0)


@scenario("executor", alone=False)
def worker_killed_right_after_reply(run: Run, kill: str) -> None:
    """Tasks' workers are killed as soon as their replies are there, before anybody gets the values."""
    assert kill == "executor"
    nbytes = run.size()
    marks = run.path("executor")
    task = run.task(parts.make, 1, max_retries=0)
    for _ in range(3):
        seeds = run.seeds(2)
        refs = [task.remote(seed, nbytes, f"{marks}-{seed}") for seed in seeds]
        all_done(run.ray, refs)
        for pid in {int(parts.await_file(f"{marks}-{seed}")) for seed in seeds}:
            run.kill(pid)
        run.records(len(refs))
        run.settle()
        for ref, seed in zip(refs, seeds, strict=True):
            run.read(ref, seed, nbytes, "its worker was killed right after the reply")


@scenario("actor")
def actor_return_outlives_the_actor(run: Run, kill: str) -> None:
    """What an actor returned is got after it was killed, or has ended by itself."""
    nbytes = run.size()
    seeds = run.seeds(4)
    actor = run.part(1, max_concurrency=2)
    refs = [actor.start("make", seed, nbytes) for seed in seeds[:2]]
    refs += actor.start("make_many", seeds[2:], nbytes, num_returns=2)
    all_done(run.ray, refs)
    if kill:
        run.kill(actor)
    else:
        seeds += run.seeds(1)
        refs.append(actor.start("make_and_end", seeds[4], nbytes))
        all_done(run.ray, refs)
    run.records(len(refs))
    run.await_death(actor)
    run.settle()
    for ref, seed in zip(refs, seeds, strict=True):
        run.read(ref, seed, nbytes, "an actor's return, the actor gone")


@scenario("executor")
def max_calls_1(run: Run, kill: str) -> None:
    """Workers that end after each task, or are killed while they end."""
    nbytes = run.size()
    marks = run.path("executor")
    task = run.task(parts.make, max_calls=1)
    seeds = run.seeds(6)
    refs = [task.remote(seed, nbytes, f"{marks}-{seed}") for seed in seeds]
    if kill:
        for ref, seed in zip(refs, seeds, strict=True):
            all_done(run.ray, [ref])
            try:
                run.kill(int(parts.await_file(f"{marks}-{seed}")))
            except ProcessLookupError:
                pass  # it was quicker
    all_done(run.ray, refs)
    run.records(len(refs))
    run.settle()
    for ref, seed in zip(refs, seeds, strict=True):
        run.read(ref, seed, nbytes, "its worker ended after the task")


@scenario("executor", "reader")
def streaming_generator(run: Run, kill: str) -> None:
    """A generator is read to its end, on another node too; its executor or a reader dies on the way."""
    nbytes = run.size()
    seeds = run.seeds(8)
    actor = run.part(1, max_task_retries=1, max_restarts=1)
    die_at = 4 if kill == "executor" else -1
    generator = actor.start("stream", seeds, nbytes, 0.02, die_at, run.path("died"), num_returns="streaming")
    reader = run.part(0)
    refs = []
    for i, seed in enumerate(seeds):
        ref = next(generator)
        if i % 2:
            run.settle()
            run.read(ref, seed, nbytes, "an item of a generator")
        refs.append(ref)
        if i == 2:
            run.ray.get(reader.start("keep", "item", ref))
            if kill == "reader":
                run.kill(reader)
    run.records(len(seeds))
    run.settle()
    for ref, seed in zip(refs, seeds, strict=True):
        run.judge(
            run.get(run.task(parts.check, 0).remote(ref, seed, nbytes), "an item, in a task"), "an item, in a task"
        )


@scenario("executor")
def generator_broken_off(run: Run, kill: str) -> None:
    """A generator is let go of half-way: the items not taken go, those held stay."""
    nbytes = run.size()
    seeds = run.seeds(8)
    actor = run.part(1, max_concurrency=2)
    generator = actor.start("stream", seeds, nbytes, 0.05, num_returns="streaming")
    held = [next(generator) for _ in range(3)]
    value = run.ray.get(held.pop())
    run.records(4)
    del generator
    if kill:
        run.kill(actor)
        run.await_death(actor)
    run.settle()
    for ref, seed in zip(held, seeds[:2], strict=True):
        run.read(ref, seed, nbytes, "an item held as a reference")
    # An item that no scan has seen anywhere stays for as long as an object of its task is known: the held ones too.
    held.clear()
    del ref
    run.records_fall_to(1, "the items that nobody takes are freed")
    run.settle()
    run.check(value, seeds[2], nbytes, "an item held as an array")


@scenario("executor", alone=False)
def crash_in_the_middle_with_retry(run: Run, kill: str) -> None:
    """A task reads, puts, and is killed in the middle; the retry has the same arguments and returns a slice of one."""
    assert kill == "executor"
    nbytes = 512 * 1024 + run.size() // 16 * 16
    seed, by_value = run.seed(), run.seed()
    task = run.task(parts.die_once, max_retries=2)
    ref = run.ray.put(run.array(seed, nbytes))
    marks = [run.path("died"), run.path("died")]
    done = [task.remote(ref, seed, nbytes, marks[0])]
    done.append(task.remote(run.array(by_value, nbytes), by_value, nbytes, marks[1]))
    del ref
    for mark in marks:
        parts.await_file(mark)
        run.settle()
    run.records(2)
    for result, of in zip(done, (seed, by_value), strict=True):
        run.read(result, of, nbytes // 16 * 8, "a slice that the retry returned")


@scenario("first reader")
def worker_holds_the_gil(run: Run, kill: str) -> None:
    """One worker sleeps 5 s with the GIL held; what others drop meanwhile is freed meanwhile, what it holds is not."""
    nbytes = run.size()
    seeds = run.seeds(8)
    holder, other = run.part(1), run.part(1)
    values = [other.start("make", seeds[0], nbytes), run.ray.put(run.array(seeds[1], nbytes))]
    run.keep(holder, values)
    values.clear()
    begun, over = run.path("begun"), run.path("over")
    sleep = holder.start("hold_gil", 5, begun, over)
    parts.await_file(begun)
    refs = [other.start("make", seed, nbytes) for seed in seeds[2:5]]
    refs += [run.ray.put(run.array(seed, nbytes)) for seed in seeds[5:]]
    run.records(8)
    for ref, seed in zip(refs, seeds[2:], strict=True):
        run.read(ref, seed, nbytes, "made while a GIL is held elsewhere")
    if kill:
        other.call("keep", "held", refs[0])
        run.kill(other)
    refs.clear()
    del ref
    run.settle()
    run.records_fall_to(2, "what is dropped while a GIL is held is freed")
    run.must(not os.path.exists(over), "it was freed only after the GIL was let go")
    run.get(sleep, "the sleeper")
    for i in (0, 1):
        run.judge(holder.call("fault", f"{i}", seeds[i], nbytes), "held by the process that held the GIL")


@scenario()
def handed_over_during_a_scan(run: Run, kill: str) -> None:
    """A token moves from a node that has yet to answer a scan to one that has answered."""
    assert not kill
    nbytes = run.size()
    near = run.near()
    giver, taker = run.part(near), run.part(1 - near)  # the taker's pins are those of another host than the keeper's
    raylet = run.cluster.raylet(near)
    for turn in range(3):
        seed = run.seed()
        giver.call("submit", "given", [seed], nbytes, "node1", run.path("executor"))
        eventually(partial(_is_here, run, giver), "the return is there")
        run.records(1)
        run.settle()
        os.kill(raylet, signal.SIGSTOP)
        try:
            run.settle(complete=False)  # the other node answers, this one cannot
            giver.call("hand_over", "given", taker.handle, f"{turn}")
            time.sleep(0.1)
        finally:
            os.kill(raylet, signal.SIGCONT)
        time.sleep(0.3)
        run.judge(taker.call("fault", f"{turn}", seed, nbytes), "handed over during a scan")
        taker.call("drop", f"{turn}")
        run.records_fall_to(0, "what was handed over and dropped is freed")


def _is_here(run: Run, giver: Proxy) -> bool:
    return bool(giver.call("unready", "given") == 0)
