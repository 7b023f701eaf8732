"""One process of the demo: a writer, or a reader of what the other hosts' writers put.

``python -m gismo_core.demo.worker ROLE``, started by fleet.Worker with GISMO_STORE and GISMO_STATE_DIR set. It
reads one JSON object per line from stdin, {"do": ..., ...}, and answers each with one line. It ends when stdin does.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import gismo_core
from gismo_core import Draft, Handle, NameNotFound, ObjectGone, Store, View
from gismo_core.bench.worker import die_with_parent
from gismo_core.demo.content import Content, make_tag, object_name, split_tag

Words = dict[str, Any]

_STEPS_PER_LOOK = 16
_PINNED = 32  # objects that a reader holds at a time; each is compared when it is let go
_WAIT_S = 10.0
_GETS_TIMED = 501


class Worker:
    """Does `step` over and over while running, and what it is told in between."""

    def __init__(self, store: Store, content: Content, number: int, options: Words) -> None:
        self.store = store
        self.content = content
        self.number = number
        self.places: int = options["places"]
        self.running = False
        self.orders: dict[str, Callable[[Words], Words]] = {"run": self.run, "pause": self.pause}

    def run(self, _: Words) -> Words:
        """Begin, or go on."""
        self.running = True
        return {}

    def pause(self, _: Words) -> Words:
        """Stop after the step that is under way, holding nothing."""
        self.running = False
        return self.counts()

    def counts(self) -> Words:
        """What was done so far."""
        raise NotImplementedError

    def step(self) -> None:
        """One operation."""
        raise NotImplementedError


class Writer(Worker):
    """Puts named objects of random sizes, each in place of an older one."""

    def __init__(self, store: Store, content: Content, number: int, options: Words) -> None:
        super().__init__(store, content, number, options)
        self.sabotage: bool = options["sabotage"]
        self.serial = 0
        self.live: list[Handle | None] = [None] * self.places
        self.names = [object_name(number, place) for place in range(self.places)]
        self.drafts: list[Draft] = []
        self.orders |= {"hold": self.hold, "drain": self.drain}

    def counts(self) -> Words:
        return {"objects": self.serial}

    def step(self) -> None:
        for draft in self.drafts:  # begun before: goes on being written, and is never ready
            half = draft.nbytes // 2
            draft.buffer[half : half + 4096] = self.content.block[:4096]
        if self.drafts:
            return
        place = self.serial % self.places
        old = self.live[place]
        if old is not None:
            self.live[place] = None
            self.store.delete(old)
        tag = make_tag(self.number, self.serial)
        data: memoryview | bytearray = self.content.of(tag)
        if self.sabotage and self.serial % 50 == 49:
            data = bytearray(data)
            data[len(data) // 2] ^= 1
        self.live[place] = self.store.put(data, name=self.names[place], tag=tag, wait_s=_WAIT_S)
        self.serial += 1

    def hold(self, order: Words) -> Words:
        """From now on write objects that are never sealed."""
        for _ in range(order["objects"]):
            draft = self.store.create(order["nbytes"], wait_s=_WAIT_S)
            half = draft.nbytes // 2
            draft.buffer[:half] = bytes(half)
            self.drafts.append(draft)
        return {"sealed": sum(handle is not None for handle in self.live)}

    def drain(self, _: Words) -> Words:
        """Delete all."""
        mine = [handle for handle in self.live if handle is not None]
        for handle in mine:
            self.store.delete(handle)
        self.live = [None] * self.places
        return {"deleted": len(mine)}


class Reader(Worker):
    """Looks up what the writers of other hosts put, holds it for a while, and compares every byte."""

    def __init__(self, store: Store, content: Content, number: int, options: Words) -> None:
        super().__init__(store, content, number, options)
        self.others = [writer for writer in range(options["hosts"]) if writer != number]
        self.chance = random.Random(number)
        self.pinned: deque[tuple[str, View]] = deque()
        self.right = dict.fromkeys(self.others, 0)
        self.nbytes = 0
        self.missed = 0
        self.wrong: list[str] = []
        self.held: View | None = None
        self.orders |= {"get": self.get, "look": self.look, "release": self.release, "delete": self.delete}

    def counts(self) -> Words:
        return {
            "right": {str(writer): count for writer, count in self.right.items()},
            "nbytes": self.nbytes,
            "missed": self.missed,
            "wrong": len(self.wrong),
            "first_wrong": self.wrong[0] if self.wrong else None,
        }

    def pause(self, order: Words) -> Words:
        while self.pinned:
            self.compare(*self.pinned.popleft())
        return super().pause(order)

    def step(self) -> None:
        writer = self.chance.choice(self.others)
        name = object_name(writer, self.chance.randrange(self.places))
        try:
            view = self.store.get(self.store.lookup(name))
        except (NameNotFound, ObjectGone):  # replaced at this moment, or not there yet
            self.missed += 1
            return
        self.pinned.append((name, view))
        if len(self.pinned) > _PINNED:
            self.compare(*self.pinned.popleft())

    def compare(self, name: str, view: View) -> None:
        """Late, so that its writer has had time to delete it and to write others."""
        writer, serial = split_tag(view.tag)
        if object_name(writer, serial % self.places) != name:
            self.wrong.append(f"{name}: the object of writer {writer}, number {serial}")
        elif not self.content.matches(view.tag, view.data):
            self.wrong.append(f"{name}: other bytes than writer {writer} put in its object {serial}")
        else:
            self.right[writer] += 1
            self.nbytes += view.nbytes
        view.release()

    def get(self, order: Words) -> Words:
        """The one large object: what the first get takes, and what a further one does; stays pinned."""
        handle = Handle.parse(order["handle"])
        begin = time.perf_counter_ns()
        self.held = self.store.get(handle)
        first = time.perf_counter_ns() - begin
        times = []
        for _ in range(_GETS_TIMED):
            begin = time.perf_counter_ns()
            view = self.store.get(handle)
            times.append(time.perf_counter_ns() - begin)
            view.release()
        return {"first_us": first / 1e3, "median_us": statistics.median(times) / 1e3}

    def look(self, order: Words) -> Words:
        """Compare all of what `get` pinned."""
        if self.held is None:
            raise ValueError("nothing is held")
        begin = time.perf_counter()
        right = self.content.matches_large(self.held.data, order["start"])
        return {"right": right, "nbytes": self.held.nbytes, "s": time.perf_counter() - begin}

    def release(self, _: Words) -> Words:
        """Let it go."""
        self.held = None
        return {}

    def delete(self, order: Words) -> Words:
        """Another host's object."""
        self.store.delete(Handle.parse(order["handle"]))
        return {}


_ROLES: dict[str, type[Worker]] = {"writer": Writer, "reader": Reader}


def obey(worker: Worker) -> None:
    """Work, and do what comes in, until nothing can come any more."""
    unread = b""
    while True:
        if worker.running:
            for _ in range(_STEPS_PER_LOOK):
                worker.step()
        if not select.select([0], [], [], 0 if worker.running else None)[0]:
            continue
        got = os.read(0, 65536)
        if not got:
            return
        *lines, unread = (unread + got).split(b"\n")
        for line in lines:
            order = json.loads(line)
            print(json.dumps(worker.orders[order["do"]](order)), flush=True)


def main(role: str) -> None:
    """Play one role. The first line in holds the options, the first line out says that the store is open."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    options = json.loads(os.read(0, 65536))
    content = Content.make(options["largest_bytes"], options["seed"])
    with gismo_core.open() as store:
        worker = _ROLES[role](store, content, options["number"], options)
        print("{}", flush=True)
        obey(worker)
        if isinstance(worker, Reader):
            worker.pause({})
            worker.held = None


if __name__ == "__main__":
    main(*sys.argv[1:])
