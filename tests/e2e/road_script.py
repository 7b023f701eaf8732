# mypy: ignore-errors
"""Run inside a Ray cluster: an array is made on one node and read on another; says as JSON how.

    python3 -c SCRIPT [BYTES] [ROUNDS]      one warm round and then so many; one JSON object of all
    python3 -c SCRIPT BYTES asked           a round for each line on stdin; one JSON object a line

A round: nodes' ids, of reader and maker the place of the array (file and offset of the mapping that it lies in), bytes that
came in over the reader's network meanwhile and in as long a time before, milliseconds of ray.get and a look at both ends.
"""

import json
import sys
import time

import numpy
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

BYTES = int(sys.argv[1]) if len(sys.argv) > 1 else 1 << 29
ROUNDS = sys.argv[2] if len(sys.argv) > 2 else "9"


def place(array):
    """The file that the array's first byte is mapped from, and the offset in it."""
    at = array.__array_interface__["data"][0]
    with open("/proc/self/maps") as lines:
        for line in lines:
            span, _, offset, _, _, *path = line.split()
            begin, end = (int(part, 16) for part in span.split("-"))
            if begin <= at < end:
                return [path[0] if path else "", int(offset, 16) + at - begin]
    raise AssertionError("the array is in no mapping")


def received():
    with open("/proc/net/dev") as lines:
        return sum(int(line.split(":")[1].split()[0]) for line in lines if line.lstrip().startswith("eth"))


@ray.remote(num_cpus=0.5)
class Node:
    def make(self, value):
        array = numpy.full(BYTES, value, numpy.uint8)
        return [ray.put(array)]

    def look(self, refs):
        return place(ray.get(refs[0]))

    def read(self, refs):
        quiet = received()
        time.sleep(0.5)
        idle = received() - quiet
        before, begin = received(), time.perf_counter()
        array = ray.get(refs[0])
        first, last = int(array[0]), int(array[-1])
        took = time.perf_counter() - begin
        time.sleep(max(0.0, 0.5 - took))
        return {
            "ms": took * 1e3,
            "received": received() - before,
            "idle": idle,
            "place": place(array),
            "writable": bool(array.flags.writeable),
            "ends": [first, last],
        }


ray.init("auto", log_to_driver=False)
workers = [one["NodeID"] for one in ray.nodes() if one["Alive"] and "node:__internal_head__" not in one["Resources"]]
assert len(workers) >= 2, workers
maker, reader = (
    Node.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in workers[:2]
)


def once(number):
    refs = ray.get(maker.make.remote(number % 251))
    made = ray.get(maker.look.remote(refs))
    seen = ray.get(reader.read.remote(refs))
    assert seen["ends"] == [number % 251] * 2, seen
    return {**seen, "made": made, "nodes": workers[:2]}


if ROUNDS == "asked":
    for number, _ in enumerate(sys.stdin):
        print(json.dumps(once(number)), flush=True)
else:
    rounds = [once(number) for number in range(int(ROUNDS) + 1)]
    print(json.dumps({"rounds": rounds[1:] or rounds}))  # the first opens the store
