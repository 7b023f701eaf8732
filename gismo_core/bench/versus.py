"""The same put, get and delete through gismo_core and through another store, each as a user of it writes it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gismo_core.bench.clib import native
from gismo_core.bench.group import GIB, KIB, MIB, Context, Group
from gismo_core.bench.result import Measurement, Row

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.uint8]

OPERATIONS = ("put", "get", "delete")


class Contender(Protocol):
    """A store in the hands of its user. A batch is timed as a whole; the loops are alike in all of them."""

    name: str
    deletes_by: str
    settle_s: float
    """Pause after a delete, for what the store does behind its user's back; not counted."""

    def put(self, array: Array, count: int) -> float:
        """Put it count times; seconds."""

    def get(self) -> tuple[float, Sequence[Any]]:
        """Get all that was put, as arrays or buffers; seconds."""

    def delete(self) -> float:
        """Delete all that was put; seconds. What get() gave is gone already."""


class Gismo:
    """gismo_core."""

    name = "gismo"
    deletes_by = "store.delete"
    settle_s = 0.0

    def __init__(self, store: Any) -> None:
        self.store = store
        self.handles: list[Any] = []

    def put(self, array: Array, count: int) -> float:
        """store.put(array)"""
        store, handles = self.store, self.handles
        begin = time.perf_counter()
        for _ in range(count):
            handles.append(store.put(array))
        return time.perf_counter() - begin

    def get(self) -> tuple[float, Sequence[Any]]:
        """np.frombuffer(store.get(handle))"""
        import numpy as np

        store = self.store
        begin = time.perf_counter()
        arrays = [np.frombuffer(store.get(handle), np.uint8) for handle in self.handles]
        return time.perf_counter() - begin, arrays

    def delete(self) -> float:
        """store.delete(handle)"""
        store, handles = self.store, self.handles
        begin = time.perf_counter()
        while handles:
            store.delete(handles.pop())
        return time.perf_counter() - begin


@dataclass(frozen=True, slots=True)
class Size:
    """One object size of the comparison."""

    name: str
    length: int
    count: int
    aim: float


def sizes(quick: bool) -> tuple[Size, ...]:
    """Small objects go in batches, large ones one by one."""
    if quick:
        return Size("4KiB", 4 * KIB, 10, 50.0), Size("1GiB", 16 * MIB, 1, 1.0)
    return Size("4KiB", 4 * KIB, 200, 50.0), Size("1GiB", GIB, 1, 1.0)


def rows(store: str, words: dict[str, str]) -> tuple[Row, ...]:
    """store.vs.STORE.OPERATION.SIZE. words: what the user writes for put, get and delete."""
    return tuple(
        Row(
            name=f"store.vs.{store}.{operation}.{size.name}",
            unit="us",
            better="lower",
            what=f"{operation} of {size.name}, against {words[operation]}",
            judged="ratio",
            reach=1.0,
            aim=size.aim,
        )
        for size in sizes(False)
        for operation in OPERATIONS
    )


def _check(arrays: Sequence[Any], array: Array, name: str) -> None:
    for got in arrays:
        view = memoryview(got)
        if view.nbytes != array.nbytes or view[-1] != array[-1] or view[0] != array[0]:
            raise RuntimeError(f"{name} gave back something else than was put")


def compare(
    context: Context, store: str, others: Callable[[int], AbstractContextManager[list[Contender]]]
) -> Iterator[Measurement]:
    """Put, get and delete by turns. others(bytes) starts the other store with room for so much."""
    import numpy as np

    import gismo_core

    library = native()
    with (
        context.medium.fresh(lambda spec: library.format(spec, gismo_bytes(context.quick))) as spec,
        others(plasma_bytes(context.quick)) as contenders,
        _gismo(gismo_core, spec) as ours,
    ):
        everyone: list[Contender] = [ours, *contenders]
        for size in sizes(context.quick):
            if not any(name.endswith(size.name) for name in context.wanted):
                continue
            array = np.arange(size.length, dtype=np.uint64).astype(np.uint8)
            array[0], array[-1] = 7, 9
            seconds: dict[str, dict[str, list[float]]] = {
                operation: {contender.name: [] for contender in everyone} for operation in OPERATIONS
            }
            # Large objects meet other pages of the other store in the first rounds, until all of its memory is warm.
            warm_up = 1 if context.quick else 4
            context.say(f"{size.name}: {warm_up} rounds to warm up, {context.samples} that count")
            for turn in range(warm_up + context.samples):
                for contender in everyone:
                    put_s = contender.put(array, size.count)
                    get_s, arrays = contender.get()
                    _check(arrays, array, contender.name)
                    del arrays
                    delete_s = contender.delete()
                    time.sleep(contender.settle_s)
                    if turn >= warm_up:
                        for operation, spent in zip(OPERATIONS, (put_s, get_s, delete_s), strict=True):
                            seconds[operation][contender.name].append(spent / size.count * 1e6)
            for operation in OPERATIONS:
                samples = seconds[operation]
                baselines = {
                    f"{contender.name}: {contender.deletes_by}" if operation == "delete" else contender.name: samples[
                        contender.name
                    ]
                    for contender in contenders
                }
                yield Measurement(f"store.vs.{store}.{operation}.{size.name}", samples[ours.name], baselines)
            del array
            gc.collect()


@contextmanager
def _gismo(gismo_core: Any, spec: str) -> Iterator[Gismo]:
    store = gismo_core.open(spec)
    try:
        yield Gismo(store)
    finally:
        store.close()


def gismo_bytes(quick: bool) -> int:
    """Our store: one large object, and half as much again."""
    return 128 * MIB if quick else GIB + GIB // 2


def plasma_bytes(quick: bool) -> int:
    """The other store: deletes take their time in some, so that several large objects have room."""
    return 512 * MIB if quick else 4 * GIB


def group(
    store: str,
    words: dict[str, str],
    packages: tuple[str, ...],
    others: Callable[[int], AbstractContextManager[list[Contender]]],
) -> Group:
    """The group of one other store."""
    return Group(
        name=f"store.vs.{store}",
        rows=rows(store, words),
        run=lambda context: compare(context, store, others),
        needs_bytes=lambda quick: gismo_bytes(quick) + plasma_bytes(quick) + 3 * sizes(quick)[-1].length,
        needs_packages=(*packages, "numpy"),
        has_daemons=True,
    )
