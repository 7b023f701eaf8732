"""``store.vs.plasma.*``: Ray's own store, as the driver of a one-node cluster meets it.

A user of Ray deletes by dropping the last reference (``del ref``): Ray 2.60 has no other public way. That returns at
once and Ray frees the memory later, in other processes; ``store.delete`` has freed it when it returns.
Plasma's memory is preallocated, as the store's is populated; without that a first put of 1 GiB takes 15 times as long.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gismo_core.bench import ray_logs
from gismo_core.bench.versus import Contender, group

if TYPE_CHECKING:
    from gismo_core.bench.versus import Array


class Plasma:
    """ray.put, ray.get, del ref."""

    name = "Ray's plasma"
    deletes_by = "del ref (its memory comes back later)"
    settle_s = 0.3

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.refs: list[Any] = []

    def put(self, array: Array, count: int) -> float:
        """ray.put(array)"""
        ray, refs = self.ray, self.refs
        begin = time.perf_counter()
        for _ in range(count):
            refs.append(ray.put(array))
        return time.perf_counter() - begin

    def get(self) -> tuple[float, list[Any]]:
        """ray.get(ref)"""
        ray = self.ray
        begin = time.perf_counter()
        arrays = [ray.get(ref) for ref in self.refs]
        return time.perf_counter() - begin, arrays

    def delete(self) -> float:
        """del ref"""
        refs = self.refs
        begin = time.perf_counter()
        while refs:
            refs.pop()
        return time.perf_counter() - begin


@contextmanager
def start(nbytes: int) -> Iterator[list[Contender]]:
    """A local Ray cluster of one node with a warm plasma store."""
    os.environ["RAY_preallocate_plasma_memory"] = "1"  # noqa: SIM112 - so it is called; the raylet reads it
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "60")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    # Short: socket paths below it may have 107 bytes.
    directory = tempfile.mkdtemp(prefix="gb-", dir="/tmp")
    try:
        for once_more in (True, False):
            try:
                ray.init(
                    num_cpus=1,
                    object_store_memory=nbytes,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=directory,
                )
                break
            except Exception as error:
                # A raylet ends when its agents took longer than 15 s to start, as they may when nothing is cached.
                print(f"Ray does not start: {error}\n{ray_logs.said_last(Path(directory))}", file=sys.stderr)
                if not once_more:
                    raise
                ray.shutdown()
        yield [Plasma(ray)]
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


GROUPS = (group("plasma", {"put": "ray.put", "get": "ray.get", "delete": "del ref"}, ("ray",), start),)
