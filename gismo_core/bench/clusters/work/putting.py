"""ray.put in the driver."""

from __future__ import annotations

import time

import numpy as np
import ray

from gismo_core.bench.clusters.work.cluster import Here


def put(here: Here, nbytes: int, count: int) -> dict[str, float]:
    """Put an array so often, holding all; mean seconds of one. It rotates over a GiB of warm memory."""
    source = here.kept.get("source")
    need = max(nbytes, min(nbytes * count, 1 << 30))
    if source is None or source.nbytes < need:
        here.kept["source"] = source = np.arange(need, dtype=np.uint8)
    places = max(1, min(source.nbytes, 1 << 30) // nbytes)
    pieces = [source[at * nbytes : (at + 1) * nbytes] for at in range(places)]
    begin = time.perf_counter()
    refs = [ray.put(pieces[number % places]) for number in range(count)]
    put_s = time.perf_counter() - begin
    got = ray.get(refs[-1])
    if got.nbytes != nbytes or got[-1] != pieces[(count - 1) % places][-1]:
        raise RuntimeError("ray.get gave back something else than was put")
    here.kept["refs"] = refs
    return {"put_s": put_s / count}


def put_in_place(here: Here, nbytes: int, number: int) -> dict[str, float]:
    """Put an array that its producer has written where gismo_core.ray.empty says: stock's numpy.empty; seconds."""
    import gismo_core.ray

    array = gismo_core.ray.empty(nbytes, np.uint8) if here.session() is not None else np.empty(nbytes, np.uint8)
    array[:] = number % 251
    begin = time.perf_counter()
    ref = ray.put(array)
    put_s = time.perf_counter() - begin
    got = ray.get(ref)
    if got.nbytes != nbytes or got[0] != number % 251 or got[-1] != number % 251:
        raise RuntimeError("ray.get gave back something else than was put")
    here.kept["refs"] = [ref]
    return {"put_s": put_s}


def memcpy(here: Here, nbytes: int) -> dict[str, float]:
    """One thread's copy between warm arrays; seconds."""
    source = here.kept["source"][:nbytes]
    if "target" not in here.kept or here.kept["target"].nbytes != nbytes:
        here.kept["target"] = np.zeros(nbytes, np.uint8)
    begin = time.perf_counter()
    np.copyto(here.kept["target"], source)
    return {"memcpy_s": time.perf_counter() - begin}
