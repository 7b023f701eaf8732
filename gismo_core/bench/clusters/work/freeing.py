"""How long after the last reference is gone the bytes can be used again; and what the scans cost."""

from __future__ import annotations

import ctypes
import random
import time
from collections import deque
from typing import Any

import numpy as np
import ray

from gismo_core import errors
from gismo_core.bench.clusters.work import transfer
from gismo_core.bench.clusters.work.cluster import Here

_POLL_S = 0.001
_GIVE_UP_S = 60.0


class Holder:
    """Holds its GIL, as C code that does not let go of it does."""

    def hold(self, seconds: float) -> None:
        """Python's own sleep lets go of the GIL; libc's, called so, does not."""
        ctypes.PyDLL(None).usleep(ctypes.c_uint(int(seconds * 1e6)))


def prepare_lag(here: Here, nbytes: int, from_task: bool) -> None:
    """An object that the driver put and another node has read; or one that an actor there returned."""
    if "maker" not in here.kept:
        here.kept["maker"] = here.actor(transfer.Maker, 1)
        here.kept["reader"] = here.actor(transfer.Reader, 1)
        here.kept["own"] = transfer.Maker()
    if from_task:
        ref = here.kept["maker"].give.remote(nbytes, 1)
        transfer.check(ray.get(ref), nbytes, 1)
    else:
        number, [ref] = here.kept["own"].put(nbytes, 1)
        ray.get(here.kept["reader"].get.remote([ref], nbytes, number, False, False))
    here.kept["refs"] = [ref]


def lag(here: Here) -> float:
    """Drop the last reference; seconds until its bytes are free."""
    in_use = here.pool_bytes if here.session() is not None else lambda: here.use().plasma_bytes
    refs = here.kept.pop("refs")
    before = in_use()
    begin = time.perf_counter()
    refs.clear()
    while in_use() >= before:
        if time.perf_counter() - begin > _GIVE_UP_S:
            raise TimeoutError(f"not freed after {_GIVE_UP_S:.0f} s")
        time.sleep(_POLL_S)
    return time.perf_counter() - begin


def hold_gil(here: Here, seconds: float) -> None:
    """A worker on another node holds its GIL from now on; does not wait."""
    if "holder" not in here.kept:
        here.kept["holder"] = here.actor(Holder, len(here.nodes) - 1)
    here.kept["holding"] = here.kept["holder"].hold.remote(seconds)


def still_held(here: Here) -> bool:
    """Whether it still does."""
    _, waiting = ray.wait([here.kept["holding"]], timeout=0)
    return bool(waiting)


def fill(here: Here, share: float, nbytes: int) -> float:
    """Put live objects until that share of the pool is in use; the share."""
    stats = here.session().store.stats()
    need = int(share * stats.data_bytes) - stats.used_bytes
    array = np.ones(nbytes, np.uint8)
    here.kept["filling"] = [ray.put(array) for _ in range(need // nbytes)]
    now = here.session().store.stats()
    return float(now.used_bytes / now.data_bytes)


def empty(here: Here) -> None:
    """Let go of them."""
    here.kept.pop("filling", None)


# ---- under churn ----


def prepare_churn(here: Here, live: int, nbytes: int) -> None:
    """So many live objects."""
    array = np.ones(nbytes, np.uint8)
    here.kept["live"] = [ray.put(array) for _ in range(live)]


def churn(here: Here, seconds: float, rate: float, nbytes: int, probes_per_s: float) -> dict[str, Any]:
    """Drop one at random and put one, so often; the lags of some, s, and what the scans took meanwhile.

    The last of the lags is over before this returns, for all that are dropped before the last quarter.
    """
    session = here.session()
    store, keeper = session.store, session.keeper
    live: list[Any] = here.kept["live"]
    array = np.ones(nbytes, np.uint8)
    chance = random.Random(11)
    before = ray.get(keeper.status.remote())
    waiting: deque[tuple[float, Any]] = deque()
    lags: list[float] = []
    begin = time.perf_counter()
    done = 0
    probe_at = begin
    look_at = begin
    while (now := time.perf_counter()) - begin < seconds:
        if now >= look_at:
            look_at = now + 0.01
            for dropped, handle in list(waiting):
                if _is_gone(store, handle):
                    lags.append(now - dropped)
                    waiting.remove((dropped, handle))
        if (now - begin) * rate <= done:
            time.sleep(0.0005)
            continue
        index = chance.randrange(len(live))
        if now >= probe_at:
            probe_at = now + 1 / probes_per_s
            handle = store.find(memoryview(ray.get(live[index])))
            if handle is not None:
                waiting.append((time.perf_counter(), handle))
        live[index] = ray.put(array)
        done += 1
    wall_s = time.perf_counter() - begin
    # Those that still wait count with what they have waited: leaving them out would flatter.
    lags += [time.perf_counter() - dropped for dropped, _ in waiting]
    after = ray.get(keeper.status.remote())
    return {
        "lags_s": lags,
        "unfinished": len(waiting),
        "rate": done / wall_s,
        "wall_s": wall_s,
        "scan_cpu_s": after["scan_cpu_s"] - before["scan_cpu_s"],
        "scans": after["scans"] - before["scans"],
        "freed": after["freed"] - before["freed"],
    }


def end_churn(here: Here) -> None:
    """Let go of all."""
    here.kept.pop("live", None)


def _is_gone(store: Any, handle: Any) -> bool:
    try:
        store.peek(handle, 8)
    except errors.ObjectGone:
        return True
    return False
