"""Values of many kinds through a real cluster: what comes out is what stock Ray gives, and it lay in the store."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import ray_pool
from gismo_core.ray import pages, record, session, writing

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.timeout(240),
]

N = 50_000  # float64: 400 KB


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray, on this machine, with a pool; yields the module ray."""
    with ray_pool.ray_here() as ray:
        yield ray


def here() -> session.Session:
    """The session of this process, once its keeper is there."""
    for _ in range(1200):
        current = session.current()
        if current is not None and current.keeper is not None:
            return current
        time.sleep(0.05)
    raise AssertionError("there was no keeper within a minute")


def records() -> int:
    return len(here().store.sealed(tag=record.TAG, mask=record.TAG_MASK))


def until_none_is_left() -> None:
    gc.collect()
    for _ in range(1200):
        if not records():
            return
        time.sleep(0.05)
    raise AssertionError(f"{records()} records are left a minute after their last reference")


def chunked_table() -> pa.Table:
    return pa.concat_tables(
        pa.table({"x": np.arange(1000) + start, "s": [f"row {start + i}" for i in range(1000)]})
        for start in range(0, 20_000, 1000)
    )


def frame() -> pd.DataFrame:
    text = pd.Series([f"text {i}" * 3 for i in range(20_000)], dtype=pd.ArrowDtype(pa.string()))
    return pd.DataFrame({"a": np.arange(20_000), "s": text})


VALUES: dict[str, Callable[[], Any]] = {
    "array": lambda: np.arange(N, dtype=np.float64),
    "fortran": lambda: np.asfortranarray(np.arange(N, dtype=np.float64).reshape(500, -1)),
    "strided": lambda: np.arange(4 * N, dtype=np.float64)[::2],
    "structured": lambda: np.zeros(N, dtype=[("a", "<i4"), ("b", "<f8")]),
    "objects": lambda: np.array([{"i": i, "t": f"text {i}" * 5} for i in range(5_000)], dtype=object),
    "bytes": lambda: os.urandom(300_000),
    "bytearray": lambda: bytearray(os.urandom(300_000)),
    "str": lambda: "é" * 200_000,
    "nested": lambda: {"k": [np.arange(N), {"b": b"x" * 200_000}], "n": None, "t": (1, 2.5, "z")},
    "many arrays": lambda: [np.full(100, i) for i in range(3_000)],
    "empty arrays too": lambda: [np.empty(0), np.arange(N), np.empty((0, 3))],
    "ints": lambda: list(range(200_000)),
    "table": chunked_table,
    "sliced table": lambda: chunked_table().slice(5_000, 9_000),
    "batch": lambda: pa.record_batch({"x": np.arange(N), "y": np.arange(N) * 0.5}),
    "frame": frame,
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and bool(np.all(one == other))
    if isinstance(one, (pa.Table, pa.RecordBatch)):
        return bool(one.equals(other))
    if isinstance(one, pd.DataFrame):
        return bool(one.equals(other)) and list(one.dtypes) == list(other.dtypes)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("kind", VALUES)
def test_put_argument_and_return(cluster: Any, kind: str) -> None:
    value = VALUES[kind]()
    expected = bytes(value) if isinstance(value, bytearray) else value  # as stock Ray has it
    until_none_is_left()

    @cluster.remote  # type: ignore[untyped-decorator]
    def echo(item: Any) -> Any:
        return [item]

    ref = cluster.put(value)
    assert records() == 1
    assert same(expected, cluster.get(ref))
    assert same([expected], cluster.get(echo.remote(ref)))
    assert same([expected], cluster.get(echo.remote(value)))
    del ref
    until_none_is_left()


def test_an_array_is_read_only_and_outlives_its_reference(cluster: Any) -> None:
    ref = cluster.put(np.arange(N))
    array = cluster.get(ref)
    assert not array.flags.writeable
    assert here().store.find(array) is not None
    del ref
    gc.collect()
    time.sleep(1.0)  # several scans' time: nothing but the array holds it now
    assert same(array, np.arange(N))
    assert records() == 1
    del array
    until_none_is_left()


def test_a_slice_of_an_argument_is_passed_on_without_a_copy(cluster: Any) -> None:
    @cluster.remote  # type: ignore[untyped-decorator]
    def half(item: Any) -> Any:
        return item[: len(item) // 2]

    ref = cluster.put(np.arange(2 * N))
    whole = cluster.get(ref)
    cluster.get(half.remote(ref))  # the worker has its tokens now
    part = cluster.get(half.remote(ref))
    assert here().store.find(part) == here().store.find(whole)
    del whole, ref
    gc.collect()
    time.sleep(1.0)
    assert same(part, np.arange(N))
    del part
    until_none_is_left()


def test_the_descriptor_is_of_constant_size(cluster: Any) -> None:
    context = cluster._private.worker.global_worker.get_serialization_context()
    # With tokens that are all in the same state, since Ray sends that along: nothing while the call that made them is
    # not answered, 23 bytes then, 37 for a put's ObjectRef, which one that is made at once is.
    here().own_token()
    end = time.monotonic() + 30
    while len(here()._own.tokens) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    tokens = list(here()._own.tokens)
    answered, _ = cluster.wait(tokens, num_returns=len(tokens), timeout=30)
    assert len(answered) >= 3
    del tokens, answered
    sizes = set()
    for value in (np.zeros(N), [np.full(90_000, i, dtype=np.uint8) for i in range(100)], b"x" * (1 << 20)):
        sizes.add(ray_pool.serialized(context, here().internals.callers, value).total_bytes)
    writing._thread.held.clear()  # as .remote() does when it returns
    assert len(sizes) == 1
    assert sizes.pop() <= 640
    until_none_is_left()


def test_references_inside_a_value_are_kept(cluster: Any) -> None:
    inner = cluster.put(np.arange(N))
    outer = cluster.put([inner, np.arange(N)])
    del inner
    gc.collect()
    time.sleep(1.0)
    (again, _) = cluster.get(outer)
    assert same(cluster.get(again), np.arange(N))
    del outer, again, _
    until_none_is_left()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(N),
        np.asfortranarray(np.arange(N).reshape(100, -1)),
        np.arange(2 * N)[::2],
        np.zeros(N, ">f8"),
        np.zeros(N, "M8[ns]"),
        np.array(["text"] * N),
        np.zeros((), np.float64),
        np.zeros(N, [("a", "i4"), ("b", "f8")]),
        np.zeros(N, np.dtype("f8", metadata={"note": lambda: 3})),
    ],
    ids=["C", "Fortran", "strided", "swapped", "dates", "text", "scalar", "structured", "metadata"],
)
def test_an_array_is_pickled_as_rays_own_pickler_does(cluster: Any, array: Any) -> None:
    got = cluster.get(cluster.put(array))
    stock = cluster.cloudpickle.loads(cluster.cloudpickle.dumps(array, protocol=5))
    assert (type(got), got.dtype, got.shape, got.strides) == (type(stock), stock.dtype, stock.shape, stock.strides)
    assert got.tobytes() == stock.tobytes()
    assert (got.dtype.metadata is None) == (stock.dtype.metadata is None)
    del got
    until_none_is_left()


def test_a_serializer_of_the_users_for_arrays_is_used(cluster: Any) -> None:
    array = np.arange(N)
    cluster.util.register_serializer(np.ndarray, serializer=lambda one: one.sum(), deserializer=lambda total: -total)
    try:
        assert cluster.get(cluster.put(array)) == -array.sum()
    finally:
        cluster.util.deregister_serializer(np.ndarray)
    assert same(cluster.get(cluster.put(array)), array)
    until_none_is_left()


def test_an_array_written_in_place_is_put_without_a_copy(cluster: Any) -> None:
    import gismo_core.ray

    here()
    array = gismo_core.ray.empty((100, N // 100), np.float64)
    array[:] = 3
    ref = cluster.put(array)
    listed = here().store.sealed(tag=record.TAG, mask=record.TAG_MASK)
    assert len(listed) == 2
    assert sum(one.handle.length for one in listed) < array.nbytes + 8192
    assert here().store.stats().writing_objects == 0
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1
    assert float(cluster.get(ref).sum()) == 3.0 * N
    del ref, array
    until_none_is_left()


def dies_of_writing(array: Any, index: int) -> bool:
    """Whether a forked child is ended by SIGSEGV when it writes there."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        array[index] = 4
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGSEGV


@pytest.mark.parametrize("nbytes", [1 << 20, 32 << 20], ids=["small", "large"])
def test_what_was_put_in_place_is_protected_from_older_views(cluster: Any, nbytes: int) -> None:
    import gismo_core.ray

    here()
    until_none_is_left()
    array = gismo_core.ray.empty(nbytes, np.uint8)
    older = array[1:]
    address = array.ctypes.data
    array[:] = 3
    ref = cluster.put(array)
    assert older.flags.writeable  # NumPy's flag is not what protects it
    assert dies_of_writing(older, nbytes // 2)
    got = cluster.get(ref)
    assert int(got.sum()) == 3 * nbytes
    del array, older
    assert int(got.sum()) == 3 * nbytes  # readers here do not notice that the protection ends
    del ref, got
    until_none_is_left()
    again = gismo_core.ray.empty(nbytes, np.uint8)
    assert again.ctypes.data == address
    again[:] = 5  # writable as before
    ref = cluster.put(again)
    assert int(cluster.get(ref).sum()) == 5 * nbytes
    del ref, again
    until_none_is_left()


def test_where_pages_are_large_an_array_has_its_own(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on hugetlbfs, where no part of a page can be protected."""
    import gismo_core.ray

    grain = 1 << 16
    monkeypatch.setattr(pages, "grain", lambda _: grain)
    here()
    until_none_is_left()
    small = gismo_core.ray.empty(31 * grain, np.uint8)
    assert here().store.stats().writing_objects == 0  # a plain one, which put copies
    array, neighbour = (gismo_core.ray.empty(40 * grain + 5, np.uint8) for _ in range(2))
    assert array.ctypes.data % grain == 0
    older = array[:]
    array[:] = 3
    ref = cluster.put(array)
    neighbour[:] = 4
    for index in (0, -1):
        assert dies_of_writing(older, index)
    assert int(cluster.get(ref).sum()) == 3 * array.nbytes
    assert int(neighbour.sum()) == 4 * neighbour.nbytes
    del small, array, older, neighbour, ref
    until_none_is_left()


def test_an_array_in_place_that_is_never_put_leaves_nothing(cluster: Any) -> None:
    import gismo_core.ray

    here()
    array = gismo_core.ray.empty(N)
    assert here().store.stats().writing_objects == 1
    del array
    gc.collect()
    assert here().store.stats().writing_objects == 0


def test_a_lost_record_is_an_object_lost_error(cluster: Any) -> None:
    ref = cluster.put(np.arange(N))
    (one,) = here().store.sealed(tag=record.TAG, mask=record.TAG_MASK)
    here().store.delete(one.handle)
    with pytest.raises(cluster.exceptions.ObjectLostError):
        cluster.get(ref)


def test_a_full_pool_falls_back_to_rays_own_store(cluster: Any) -> None:
    until_none_is_left()
    block = np.ones(8 << 20)  # 64 MiB
    refs = [cluster.put(block) for _ in range(8)]  # 512 MiB and more do not fit
    held = records()
    assert 4 <= held < 8
    for ref in refs:
        assert same(cluster.get(ref), block)
    del refs, ref
    until_none_is_left()
    ref = cluster.put(block)
    assert records() == 1
    del ref
    until_none_is_left()


def test_other_callers_of_serialize_are_left_alone(cluster: Any) -> None:
    context = cluster._private.worker.global_worker.get_serialization_context()
    here()
    assert context.serialize(np.zeros(N)).total_bytes > 8 * N  # Ray's own form
    assert records() == 0


def test_a_driver_that_is_done_refers_to_nothing(cluster: Any) -> None:
    """What Gismo says to its keeper is not to stay in the driver's reference table, and so in `ray memory`."""
    core_worker = cluster._private.worker.global_worker.core_worker
    for _ in range(4):
        ref = cluster.put(np.arange(N))
        del ref
        until_none_is_left()
        left: set[bytes] = set()
        for _ in range(600):
            ready = {token.hex().encode() for token in here()._own.tokens}  # for arguments by value
            left = set(core_worker.get_all_reference_counts()) - ready
            if not left:
                break
            time.sleep(0.05)
        assert not left, f"still there after 30 s: {left}"
