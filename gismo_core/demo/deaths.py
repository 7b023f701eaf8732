"""Act: a writer is killed in the middle of writing and another one frozen; the others go on."""

from __future__ import annotations

import os
import signal
import time

from gismo_core import NameNotFound, ObjectState
from gismo_core.cli.output import size_text
from gismo_core.demo import traffic
from gismo_core.demo.content import object_name
from gismo_core.demo.fleet import Fleet, Host, Sample, Worker
from gismo_core.demo.stage import Stage, count, ms, wait_until

_WRITING_S = 0.05  # the victim writes on so long after it has begun its objects


def play(stage: Stage, fleet: Fleet) -> None:
    """Before, kill and freeze, meanwhile, thaw, after."""
    plan, screen = stage.plan, stage.screen
    doomed, frozen = fleet.hosts[0], fleet.hosts[1]
    others = [worker for worker in fleet.workers if worker not in (doomed.writer, frozen.writer)]
    screen.act("Kill and freeze: one writer gets SIGKILL while it writes, another SIGSTOP")
    fleet.tell("run")
    before = _window(fleet, plan.before_s)

    held = doomed.writer.ask("hold", objects=plan.held_objects, nbytes=plan.held_bytes)
    time.sleep(_WRITING_S)
    half_written = _half_written(doomed)
    frozen.writer.stop()
    stopped = fleet.sample()
    begin_s = time.monotonic()
    os.kill(doomed.writer.pid, signal.SIGKILL)
    gone_s = wait_until(lambda: _gone(doomed.writer), begin_s)
    freed_s = wait_until(lambda: _freed(doomed), begin_s)
    doomed.writer.process.wait()
    screen.say(f"   the writer of host {doomed.number} is dead, the writer of host {frozen.number} stands still")
    meanwhile = traffic.watch(stage, fleet, plan.frozen_s)
    frozen_ops = meanwhile[1].ops(frozen.writer.pid) - stopped.ops(frozen.writer.pid)
    frozen.writer.thaw()
    after = _window(fleet, plan.after_s)
    # On a machine with much else to do it may not have had its turn in that window.
    wait_until(lambda: fleet.sample().ops(frozen.writer.pid) > after[0].ops(frozen.writer.pid), time.monotonic())
    thawed = fleet.sample()
    thawed_ops = thawed.ops(frozen.writer.pid) - after[0].ops(frozen.writer.pid)
    thawed_s = thawed.at_s - after[0].at_s

    fleet.tell("pause", [host.writer for host in fleet.hosts if host is not doomed])
    said = fleet.tell("pause", fleet.readers)
    kept = _kept(stage, fleet, doomed)
    windows = {"before": before, "meanwhile": meanwhile, "after": after}
    ops = {name: {str(worker): _ops_per_s(window, worker) for worker in others} for name, window in windows.items()}
    total = {name: sum(found.values()) for name, found in ops.items()}
    stage.note(
        "deaths",
        half_written_objects=half_written,
        half_written_bytes=half_written * plan.held_bytes,
        gone_s=gone_s,
        freed_s=freed_s,
        frozen_s=meanwhile[1].at_s - begin_s,
        frozen_ops=frozen_ops,
        thawed_ops=thawed_ops,
        others_ops_per_s=total,
        others=ops,
        sealed_by_the_dead=held["sealed"],
        kept_of_the_dead=kept,
    )
    screen.table(
        ("", ">before", ">meanwhile", ">after"),
        [(f"{worker}, ops/s", *(count(found[str(worker)]) for found in ops.values())) for worker in others]
        + [("together", *(count(one) for one in total.values()))],
    )
    stage.expect(
        "the killed one's half-written objects are freed, by themselves",
        freed_s is not None and half_written == plan.held_objects,
        f"{half_written} objects, {size_text(half_written * plan.held_bytes)}, {ms(freed_s)} after the kill; "
        f"the kernel took {ms(gone_s)} to end it",
    )
    stage.expect(
        "all that it had sealed is still there and right",
        kept == held["sealed"] and kept > 0,
        f"{kept} of {held['sealed']} objects",
    )
    stage.expect(
        "every other process goes on",
        all(found > 0 for found in ops["meanwhile"].values()) and total["meanwhile"] > total["before"] / 4,
        f"{count(total['before'])} ops/s before, {count(total['meanwhile'])} meanwhile, {count(total['after'])} after",
    )
    stage.expect(
        "the frozen one does nothing, and goes on when thawed",
        frozen_ops == 0 and thawed_ops > 0,
        f"{count(frozen_ops)} ops in {meanwhile[1].at_s - begin_s:.1f} s, {count(thawed_ops)} in {thawed_s:.1f} s afterwards",
    )
    traffic.judge_readers(stage, "deaths", said)
    stage.conclude("SIGKILL: half-written objects free again", f"{half_written} objects after {ms(freed_s)}")
    stage.conclude("the others before / meanwhile / after", " / ".join(count(one) for one in total.values()) + " ops/s")


def _window(fleet: Fleet, seconds: float) -> tuple[Sample, Sample]:
    first = fleet.sample()
    time.sleep(seconds)
    fleet.check_alive()
    return first, fleet.sample()


def _ops_per_s(window: tuple[Sample, Sample], worker: Worker) -> float:
    first, last = window
    return (last.ops(worker.pid) - first.ops(worker.pid)) / (last.at_s - first.at_s)


def _half_written(host: Host) -> int:
    """Of the host's own; nobody else writes there."""
    return sum(one.state == ObjectState.WRITING and one.owner_lane == host.lane for one in host.store.objects())


def _gone(worker: Worker) -> bool:
    """Ended, not yet waited for."""
    return os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _freed(host: Host) -> bool:
    """The dead one is out of the host's list, and nothing of the host is half-written."""
    listed = {one.pid for one in host.store.processes()}
    return host.writer.pid not in listed and _half_written(host) == 0


def _kept(stage: Stage, fleet: Fleet, dead: Host) -> int:
    """Objects of the dead writer that another host finds by name and compares."""
    store = fleet.hosts[-1].store
    right = 0
    for place in range(stage.plan.places):
        try:
            handle = store.lookup(object_name(dead.number, place))
        except NameNotFound:
            continue
        with store.get(handle) as view:
            right += stage.content.matches(view.tag, view.data)
    return right
