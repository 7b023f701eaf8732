"""Whole pieces of work: many objects, a shuffle, more than one node can hold."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import ray

from gismo_core.bench.clusters.work.cluster import Here

# ---- many objects of 1 MiB ----


def make(nbytes: int, number: int) -> Any:
    """A task's result."""
    array = np.zeros(nbytes, np.uint8)
    array[0] = array[-1] = number % 251
    return array


def objects(here: Here, count: int, nbytes: int) -> dict[str, float]:
    """Tasks on the other nodes make them, the driver reads them; seconds in all."""
    task = ray.remote(make)
    others = [here.on(number) for number in range(1, len(here.nodes))]
    begin = time.perf_counter()
    refs = [
        task.options(scheduling_strategy=others[number % len(others)]).remote(nbytes, number) for number in range(count)
    ]
    for number in range(count):
        array = ray.get(refs[number])
        if array.nbytes != nbytes or array[0] != number % 251 or array[-1] != number % 251:
            raise RuntimeError(f"object {number} came as something else")
        refs[number] = None
    return {"objects_s": time.perf_counter() - begin}


# ---- ray.experimental.shuffle ----


def shuffle(here: Here, partitions: int, partition_bytes: int) -> dict[str, float]:
    """As its own `run()` does it, without the progress bar; seconds."""
    from ray.experimental.shuffle import simple_shuffle

    rows = partition_bytes // (8 * 2) // partitions

    def input_reader(_: int) -> Iterable[Any]:
        for _ in range(partitions):
            yield np.ones((rows, 2), dtype=np.int64)

    def output_writer(_: int, inputs: list[Any]) -> int:
        total = 0
        for ref in inputs:
            array = ray.get(ref)
            total += array.nbytes
        return total

    begin = time.perf_counter()
    sizes = simple_shuffle(
        input_reader=input_reader,
        input_num_partitions=partitions,
        output_num_partitions=partitions,
        output_writer=output_writer,
    )
    shuffle_s = time.perf_counter() - begin
    if sum(sizes) != partitions * partitions * rows * 16:
        raise RuntimeError(f"the shuffle gave {sum(sizes)} bytes")
    return {"shuffle_s": shuffle_s}


# ---- more than a node's plasma ----


def total(array: Any) -> int:
    """Read every byte of one."""
    from gismo_core.bench.clusters.work.transfer import read

    return read(array) + len(array)


def spill(here: Here, count: int, nbytes: int) -> dict[str, float]:
    """One node makes so many and then reads each again, while the driver holds all; seconds, and bytes spilled."""
    before = here.use().spilled_bytes
    making, reading = ray.remote(make), ray.remote(total)
    there = here.on(1)
    begin = time.perf_counter()
    refs = [making.options(scheduling_strategy=there).remote(nbytes, number) for number in range(count)]
    found = ray.get([reading.options(scheduling_strategy=there).remote(ref) for ref in refs])
    spill_s = time.perf_counter() - begin
    for number, one in enumerate(found):
        value = number % 251
        if one != (value | value << 56) + nbytes:
            raise RuntimeError(f"object {number} came as something else")
    del refs
    return {"spill_s": spill_s, "spilled_bytes": float(here.use().spilled_bytes - before)}
