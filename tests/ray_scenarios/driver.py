"""Another driver, in a process of its own: python -m ray_scenarios.driver FD ADDRESS."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

from ray_scenarios import parts, pattern, talk


class Driver:
    """Its methods are called by scenarios, over talk.py."""

    def __init__(self, address: str) -> None:
        import ray

        self._ray = ray
        options: dict[str, Any] = {"namespace": "scenarios", "log_to_driver": False, "configure_logging": False}
        if address == "local":
            options |= {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False}
            options |= {"resources": {"node0": 100, "node1": 100}}
        ray.init(address=address, **options)
        self._refs: list[Any] = []
        self._seeds: list[int] = []
        self._values: list[Any] = []
        self._nbytes = 0

    def pid(self) -> int:
        """Of this process; it is connected."""
        return os.getpid()

    def has_hook(self) -> bool:
        """Does it write to the store?"""
        from gismo_core.ray import patches

        return patches.internals() is not None

    def put(self, seeds: list[int], nbytes: int) -> None:
        """Put an array for each seed."""
        self._seeds, self._nbytes = seeds, nbytes
        self._refs = [self._ray.put(pattern.array(seed, nbytes)) for seed in seeds]

    def submit(self, seeds: list[int], nbytes: int, node: str, marks: str = "", pause_s: float = 0.0) -> None:
        """Begin a task for each seed, two at a time on each CPU; does not wait."""
        self._seeds, self._nbytes = seeds, nbytes
        task = self._ray.remote(parts.make).options(num_cpus=0.5, resources={node: 0.001})
        self._refs = [task.remote(seed, nbytes, marks and f"{marks}-{seed}", pause_s) for seed in seeds]

    def load(self) -> None:
        """Get the arrays, hold them, and let the references go."""
        self._values = self._ray.get(self._refs, timeout=60)
        self._refs.clear()

    def in_pool(self) -> int:
        """How many of the held arrays lie in the store."""
        return sum(parts.in_pool(value) for value in self._values)

    def faults(self) -> list[str]:
        """What is wrong with the arrays, got if they are not held."""
        values = self._values or self._ray.get(self._refs, timeout=60)
        found = [pattern.fault(value, seed, self._nbytes) for value, seed in zip(values, self._seeds, strict=True)]
        return [text for text in found if text]

    def lend(self, actor: str) -> None:
        """Have a named actor get the arrays and hold them under their seeds."""
        handle = self._ray.get_actor(actor)
        calls = [handle.keep.remote(str(seed), ref) for seed, ref in zip(self._seeds, self._refs, strict=True)]
        self._ray.get(calls, timeout=60)

    def check_elsewhere(self, node: str) -> list[str]:
        """Pass an array by value to a task, and references to others; what those find wrong."""
        task = self._ray.remote(parts.check).options(num_cpus=1, resources={node: 0.001})
        calls = [task.remote(ref, seed, self._nbytes) for seed, ref in zip(self._seeds, self._refs, strict=True)]
        calls.append(task.remote(pattern.array(self._seeds[0], self._nbytes), self._seeds[0], self._nbytes))
        return [text for text in self._ray.get(calls, timeout=60) if text]

    def make_actor(self, name: str, node: str) -> int:
        """A detached actor; its process."""
        made = self._ray.remote(parts.Part).options(name=name, lifetime="detached", num_cpus=0, resources={node: 0.001})
        pid: int = self._ray.get(made.remote().ready.remote(), timeout=60)
        return pid

    def drop(self) -> None:
        """Let go of everything."""
        self._refs.clear()
        self._values.clear()
        self._seeds.clear()
        gc.collect()


def main(file_descriptor: str, address: str) -> None:
    """Serve until standard input ends."""
    talk.serve(Driver(address), int(file_descriptor))


if __name__ == "__main__":
    main(*sys.argv[1:])
