"""What the scenarios of bridge_scenarios.py share: values that are known again, and the actors of a cluster."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np

MiB = 1 << 20
SMALL = 400_000  # bytes of an array that goes to the store
PIECE_BYTES = 4 * MiB  # of the bridge that the scenarios use


def array(seed: int, nbytes: int = SMALL) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 255, nbytes, dtype=np.uint8)


def same(value: Any, seed: int, nbytes: int = SMALL) -> bool:
    return isinstance(value, np.ndarray) and bool(np.array_equal(value, array(seed, nbytes)))


class Nodes:
    """Functions to be called on the node with the pool and on the one without."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.on_pool = ray.remote(resources={"pool": 1}, num_cpus=0.1)
        self.on_bare = ray.remote(resources={"bare": 1}, num_cpus=0.1)
        self.make = self.on_pool(array)

    def bridges(self) -> list[Any]:
        """Handles of all bridges there are."""
        names = self.ray.util.list_named_actors(all_namespaces=True)
        return [
            self.ray.get_actor(one["name"], namespace=one["namespace"])
            for one in names
            if one["name"].startswith("gismo-bridge-")
        ]

    def keeper(self) -> Any:
        for one in self.ray.util.list_named_actors(all_namespaces=True):
            if one["name"].startswith("gismo-keeper-"):
                return self.ray.get_actor(one["name"], namespace=one["namespace"])
        raise LookupError("there is no keeper")

    def status(self) -> dict[str, int]:
        """The sum over the bridges."""
        total: dict[str, int] = {}
        for one in self.ray.get([actor.status.remote() for actor in self.bridges()]):
            for name, count in one.items():
                total[name] = total.get(name, 0) + count
        return total


def until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within a minute")


def records() -> int:
    """How many there are in the pool; runs where that is."""
    from gismo_core.ray import record, session

    store = session.open_store()
    assert store is not None
    return len(store.sealed(tag=record.TAG, mask=record.TAG_MASK))


def pid_of(actor: Any) -> int:
    from ray._private.state import actors as actor_table

    return int(actor_table(actor._actor_id.hex())["Pid"])


def kill_bridges(nodes: Nodes) -> None:
    for one in nodes.bridges():
        try:
            os.kill(pid_of(one), signal.SIGKILL)
        except ProcessLookupError:
            pass  # the one before is being restarted


class stopped_bridges:
    """The bridges do not run inside of this."""

    def __init__(self, nodes: Nodes) -> None:
        self.pids = [pid_of(one) for one in nodes.bridges()]

    def __enter__(self) -> None:
        assert self.pids
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)


def where() -> tuple[str, str]:
    from gismo_core.ray import session

    here = session.current()
    assert here is not None
    return str(here.store.info.store_uuid), here.identity.node.hex()


def can_return_a_record() -> bool:
    from gismo_core.ray import session

    here = session.current()
    return here is not None and len(here._leased.tokens) > 4


def until_leased(nodes: Nodes) -> None:
    """Wait for a worker on the pool's node that can return records; else say what its session is at."""
    try:
        until(lambda: nodes.ray.get(nodes.on_pool(can_return_a_record).remote()), "tokens on the pool's node")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{nodes.ray.get(nodes.on_pool(session_state).remote())}") from None


def session_state() -> str:
    import sys
    import threading
    import traceback

    from gismo_core.ray import session

    here = session.current()
    lines = [f"session {here}, store failed: {session.failure()}"]
    if here is not None:
        lines.append(f"may submit {here._may_submit.is_set()}, keeper {here.keeper}, tokens {len(here._leased.tokens)}")
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if thread.name.startswith("gismo") and thread.ident in frames:
            lines += [thread.name, *traceback.format_stack(frames[thread.ident])]
    return "\n".join(lines)
