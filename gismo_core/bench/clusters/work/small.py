"""What Gismo must not slow down, and what it costs a new worker."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np
import ray

from gismo_core.bench.clusters.work.cluster import Here


def nothing() -> None:
    """An empty task."""


def tasks(here: Here, count: int) -> dict[str, float]:
    """So many empty tasks and so many small puts; seconds."""
    task = ray.remote(nothing)
    ray.get([task.remote() for _ in range(8)])
    begin = time.perf_counter()
    ray.get([task.remote() for _ in range(count)])
    middle = time.perf_counter()
    refs = [ray.put(number) for number in range(count)]
    end = time.perf_counter()
    del refs
    return {"tasks_s": middle - begin, "puts_s": end - middle}


def put_one(here: Here, nbytes: int) -> str:
    """Put an array; the hex of the handle of its record."""
    ref = ray.put(np.ones(nbytes, np.uint8))
    here.kept["refs"] = [ref]
    found = here.session().store.find(memoryview(ray.get(ref)))
    if found is None:
        raise RuntimeError("the object did not go into the pool")
    raw: bytes = found.raw
    return raw.hex()


def newcomer(here: Here, store: str, state_dir: str, raw_handle: str) -> dict[str, Any]:
    """Have a new worker of this stock cluster load Gismo as one does at its start, though Ray is as far as it is in
    any worker, and map a first object; seconds of each."""

    # Nested, so that it travels by value: by name, the worker would import it, and gismo_core with it.
    def load(raw: bytes) -> dict[str, float]:
        if any(name.startswith("gismo_core") for name in sys.modules):
            raise RuntimeError("Gismo is loaded in this worker already, so there is nothing to measure")
        os.environ["GISMO_STORE"] = store
        os.environ["GISMO_STATE_DIR"] = state_dir
        begin = time.perf_counter()
        from gismo_core.ray import patches

        imported = time.perf_counter()
        patches.install()
        installed = time.perf_counter()
        from gismo_core.ray import reading

        value = reading.load(raw, object())
        end = time.perf_counter()
        if type(value).__name__ != "ndarray":
            raise RuntimeError(f"the object came as {type(value)}")
        return {"import_s": imported - begin, "install_s": installed - imported, "map_s": end - installed}

    task = ray.remote(num_cpus=0, max_calls=1)(load)  # a worker for it alone
    found: dict[str, Any] = ray.get(task.remote(bytes.fromhex(raw_handle)))
    return found
