"""Large objects from one node to another."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import ray

from gismo_core.bench.clusters.work.cluster import Here

_WORD = 8


def stamp(array: Any, number: int) -> None:
    """Make the ends of an array of bytes tell which it is."""
    mark = np.frombuffer(number.to_bytes(4, "little"), np.uint8)
    array[:4] = mark
    array[-4:] = mark


def check(array: Any, nbytes: int, number: int) -> None:
    """RuntimeError if it is another."""
    mark = number.to_bytes(4, "little")
    if array.nbytes != nbytes or bytes(array[:4]) != mark or bytes(array[-4:]) != mark:
        raise RuntimeError(f"object {number} of {nbytes} bytes came as something else")


def read(array: Any) -> int:
    """Read every byte, as fast as one thread of NumPy does."""
    whole = len(array) // _WORD * _WORD
    return int(np.bitwise_xor.reduce(array[:whole].view(np.uint64)))


class Maker:
    """Makes objects on its node."""

    def __init__(self) -> None:
        self.array = np.empty(0, np.uint8)
        self.number = 0

    def warm(self, nbytes: int) -> None:
        """Have private memory of that size, every page written."""
        if self.array.nbytes != nbytes:
            self.array = np.arange(nbytes, dtype=np.uint8)

    def put(self, nbytes: int, count: int) -> tuple[int, list[Any]]:
        """ray.put of so many; the number of the first, and the references."""
        self.warm(nbytes)
        first = self.number
        refs = []
        for number in range(first, first + count):
            stamp(self.array, number)
            refs.append(ray.put(self.array))
        self.number += count
        return first, refs

    def put_list(self, nbytes: int, count: int) -> list[Any]:
        """ray.put of one list of so many arrays."""
        self.warm(nbytes * count)
        pieces = [self.array[at : at + nbytes] for at in range(0, nbytes * count, nbytes)]
        for number, piece in enumerate(pieces):
            stamp(piece, number)
        return [ray.put(pieces)]

    def give(self, nbytes: int, number: int) -> Any:
        """Return the array that it holds."""
        self.warm(nbytes)
        stamp(self.array, number)
        return self.array


class Reader:
    """Gets objects on its node."""

    def __init__(self) -> None:
        self.held: list[Any] = []

    def get(self, refs: list[Any], nbytes: int, number: int, whole: bool, hold: bool) -> tuple[float, float]:
        """ray.get of the one reference, and read every byte if `whole`; seconds of each."""
        begin = time.perf_counter()
        array = ray.get(refs[0])
        got = time.perf_counter()
        if whole:
            read(array)
        end = time.perf_counter()
        check(array, nbytes, number)
        if hold:
            self.held.append(array)
        return got - begin, end - got

    def drop(self) -> None:
        """Let go of all."""
        self.held.clear()


# ---- get on another node ----


def prepare_get(here: Here, nbytes: int, count: int) -> None:
    """The second node makes and puts the objects."""
    if "maker" not in here.kept:
        here.kept["maker"] = here.actor(Maker, 1)
    here.kept["nbytes"] = nbytes
    here.kept["first"], here.kept["refs"] = ray.get(here.kept["maker"].put.remote(nbytes, count))


def get(here: Here, whole: bool) -> dict[str, float]:
    """The driver gets them one after the other, and reads every byte if `whole`; mean seconds of one."""
    nbytes, first, refs = here.kept["nbytes"], here.kept["first"], here.kept["refs"]
    got_s = read_s = 0.0
    arrays = []
    for ref in refs:
        begin = time.perf_counter()
        array = ray.get(ref)
        got = time.perf_counter()
        if whole:
            read(array)
        end = time.perf_counter()
        got_s += got - begin
        read_s += end - got
        arrays.append(array)
    for number, array in enumerate(arrays, first):
        check(array, nbytes, number)
    return {"get_s": got_s / len(refs), "read_s": read_s / len(refs)}


def drop(here: Here, left_bytes: int = 0) -> float:
    """Let go of the objects, and wait until their memory is free, but for left_bytes; seconds."""
    here.kept.pop("refs", None)
    for reader in here.kept.get("readers", ()):
        ray.get(reader.drop.remote())
    return here.settle(left_bytes)


def release(here: Here) -> None:
    """Let go of the actors too, and of what they hold in memory of their own."""
    actors = [here.kept.pop("maker", None), *here.kept.pop("readers", ())]
    for actor in actors:
        if actor is not None:
            ray.kill(actor)
    here.kept.clear()


def new_reader(here: Here) -> None:
    """A worker on the driver's node that has not seen the store's memory yet."""
    here.kept["reader"] = here.actor(Reader, 0)


def get_in_new_reader(here: Here, whole: bool) -> dict[str, float]:
    """It gets the object, and ends."""
    reader = here.kept.pop("reader")
    answer = reader.get.remote([here.kept["refs"][0]], here.kept["nbytes"], here.kept["first"], whole, False)
    get_s, read_s = ray.get(answer)
    ray.kill(reader)
    return {"get_s": get_s, "read_s": read_s}


# ---- one object to all nodes ----


def prepare_broadcast(here: Here, nbytes: int) -> None:
    """The driver puts it; a reader waits on every node."""
    if "readers" not in here.kept:
        here.kept["readers"] = [here.actor(Reader, number) for number in range(len(here.nodes))]
        here.kept["own"] = Maker()
    here.kept["nbytes"] = nbytes
    here.kept["first"], here.kept["refs"] = here.kept["own"].put(nbytes, 1)


def broadcast(here: Here) -> dict[str, float]:
    """All readers get it and hold it; seconds until the last has it."""
    begin = time.perf_counter()
    ref, nbytes, first = here.kept["refs"][0], here.kept["nbytes"], here.kept["first"]
    ray.get([reader.get.remote([ref], nbytes, first, False, True) for reader in here.kept["readers"]])
    return {"broadcast_s": time.perf_counter() - begin}


def copies(here: Here) -> float:
    """Bytes that it takes in the pool and in all plasma stores, ÷ its size."""
    now, base = here.use(), here.base()
    held = now.pool_bytes + now.plasma_bytes - base.pool_bytes - base.plasma_bytes
    return float(held / here.kept["nbytes"])


# ---- an actor returns what it holds ----


def prepare_returned(here: Here, nbytes: int) -> None:
    """An actor on the second node holds an array in its own memory."""
    if "maker" not in here.kept:
        here.kept["maker"] = here.actor(Maker, 1)
    ray.get(here.kept["maker"].warm.remote(nbytes))
    here.kept["nbytes"] = nbytes


def returned(here: Here, number: int) -> dict[str, float]:
    """It returns it, and the driver reads every byte; seconds."""
    nbytes = here.kept["nbytes"]
    begin = time.perf_counter()
    array = ray.get(here.kept["maker"].give.remote(nbytes, number))
    got = time.perf_counter()
    read(array)
    end = time.perf_counter()
    check(array, nbytes, number)
    return {"get_s": got - begin, "read_s": end - got}


# ---- many arrays in one object ----


def prepare_list(here: Here, nbytes: int, count: int) -> None:
    """The second node puts a list of arrays."""
    if "maker" not in here.kept:
        here.kept["maker"] = here.actor(Maker, 1)
    here.kept["nbytes"], here.kept["count"] = nbytes, count
    here.kept["refs"] = ray.get(here.kept["maker"].put_list.remote(nbytes, count))


def get_list(here: Here) -> dict[str, float]:
    """The driver gets it; seconds."""
    begin = time.perf_counter()
    arrays = ray.get(here.kept["refs"][0])
    end = time.perf_counter()
    if len(arrays) != here.kept["count"]:
        raise RuntimeError(f"a list of {len(arrays)} arrays came, not of {here.kept['count']}")
    for number, array in enumerate(arrays):
        check(array, here.kept["nbytes"], number)
    return {"get_s": end - begin}


# ---- a batch by value ----


class Learner:
    """Takes batches as arguments."""

    def take(self, batch: Any) -> float:
        """One number of it."""
        return float(batch[-1])


def by_value(here: Here, actors: int, nbytes: int, number: int) -> dict[str, float]:
    """The driver passes a torch tensor by value to each of the actors, which are on all nodes; seconds."""
    import torch

    if "learners" not in here.kept:
        here.kept["learners"] = [here.actor(Learner, index % len(here.nodes)) for index in range(actors)]
        here.kept["tensor"] = torch.zeros(nbytes // 4, dtype=torch.float32)
    tensor = here.kept["tensor"]
    tensor[-1] = number
    begin = time.perf_counter()
    found = ray.get([learner.take.remote(tensor) for learner in here.kept["learners"]])
    end = time.perf_counter()
    if found != [float(number)] * actors:
        raise RuntimeError(f"the actors saw {found}, not {number}")
    return {"by_value_s": end - begin}
