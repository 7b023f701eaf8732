"""Scenarios for tests/ray/test_bridge.py: functions that bridge_driver.py runs in a driver without the pool."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from typing import Any

import numpy as np
import pytest

from bridge_cluster import (
    PIECE_BYTES,
    SMALL,
    MiB,
    Nodes,
    array,
    kill_bridges,
    pid_of,
    records,
    same,
    stopped_bridges,
    until,
    until_leased,
    where,
)


def begin(nodes: Nodes) -> None:
    """A bridge with small pieces, so that a few MiB are several; the name is the one that the keeper looks for."""
    from gismo_core.ray import bridge, session

    assert session.open_store() is None
    assert nodes.ray.get(nodes.on_bare(lambda: session.open_store() is None).remote())
    until_leased(nodes)
    uuid, node = nodes.ray.get(nodes.on_pool(where).remote())
    bridge.PIECE_BYTES = PIECE_BYTES
    made = bridge.Bridges(nodes.ray, uuid)._make(node)
    assert nodes.ray.get(made.status.remote())["made"] == 0


def get(nodes: Nodes) -> None:
    ref = nodes.make.remote(1)
    value = nodes.ray.get(ref)
    assert same(value, 1)
    assert not value.flags.writeable
    assert nodes.status()["made"] >= 1, "it came by another way than the bridge"


def containers(nodes: Nodes) -> None:
    def make() -> Any:
        return {"a": [array(2), (array(3), None)], "text": "x" * 200_000, "bytes": b"y" * 200_000, "empty": np.empty(0)}

    value = nodes.ray.get(nodes.on_pool(make).remote())
    assert same(value["a"][0], 2)
    assert same(value["a"][1][0], 3)
    assert value["text"] == "x" * 200_000
    assert value["bytes"] == b"y" * 200_000
    assert value["empty"].shape == (0,)


def whole_bytes(nodes: Nodes) -> None:
    assert nodes.ray.get(nodes.on_pool(lambda: b"z" * 300_000).remote()) == b"z" * 300_000


def several(nodes: Nodes) -> None:
    values = nodes.ray.get([nodes.make.remote(seed) for seed in range(30)])
    assert all(same(value, seed) for seed, value in enumerate(values))
    mixed = nodes.ray.get([nodes.ray.put(7), nodes.make.remote(1), nodes.ray.put("x")])
    assert mixed[0] == 7
    assert same(mixed[1], 1)
    assert mixed[2] == "x"


def shapes(nodes: Nodes) -> None:
    def make() -> Any:
        grid = np.arange(200_000, dtype=np.float64).reshape(500, 400)
        return grid, np.asfortranarray(grid), np.array(3.5)

    grid, fortran, scalar = nodes.ray.get(nodes.on_pool(make).remote())
    assert grid.shape == fortran.shape == (500, 400)
    assert fortran.flags.f_contiguous
    assert np.array_equal(grid, fortran)
    assert scalar == 3.5


def pieces(nodes: Nodes) -> None:
    size = 2 * PIECE_BYTES + 12_345

    def make() -> Any:
        return [array(1), array(2, size), array(3), array(4)]

    before = nodes.status()["made"]
    one, two, three, four = nodes.ray.get(nodes.on_pool(make).remote())
    assert nodes.status()["made"] - before == 5
    assert same(one, 1)
    assert same(two, 2, size)
    assert same(three, 3)
    assert same(four, 4)


def foreign(nodes: Nodes) -> None:
    def half(value: Any) -> Any:
        return value[len(value) // 2 :], "and a word"

    part, _ = nodes.ray.get(nodes.on_pool(half).remote(nodes.make.remote(5, MiB)))
    assert np.array_equal(part, array(5, MiB)[MiB // 2 :])


def references(nodes: Nodes) -> None:
    """References inside a value are borrowed from the right owner, and live after what they came in has gone."""

    def make() -> Any:
        import ray

        return [array(6), ray.put(array(7))]

    def read(both: Any) -> bool:
        import ray

        return same(both[0], 6) and same(ray.get(both[1]), 7)

    outer = nodes.on_pool(make).remote()
    assert nodes.ray.get(nodes.on_bare(read).remote(outer))
    inner = nodes.ray.get(outer)[1]
    awaited = outer.future().result()[1]
    del outer
    gc.collect()
    time.sleep(1.0)
    assert same(nodes.ray.get(inner), 7)
    assert same(nodes.ray.get(awaited), 7)


def arguments(nodes: Nodes) -> None:
    def by_position(value: Any, *, other: Any, word: str) -> bool:
        return same(value, 8) and same(other, 9) and word == "w"

    task = nodes.on_bare(by_position)
    assert nodes.ray.get(task.remote(nodes.make.remote(8), other=nodes.make.remote(9), word="w"))

    def from_pool(task: Any) -> Any:  # a record by value, from the node with the pool to the one without
        import ray

        return ray.get(task.remote(array(8), other=array(9), word="w"))

    assert nodes.ray.get(nodes.on_pool(from_pool).remote(task))


def actors(nodes: Nodes) -> None:
    class Plain:
        def __init__(self, value: Any) -> None:
            self.right = same(value, 10)

        def check(self, value: Any, seed: int) -> bool:
            return self.right and same(value, seed)

    class Async:
        async def check(self, value: Any, seed: int) -> bool:
            await asyncio.sleep(0)
            return same(value, seed)

        async def wait_for(self, refs: list[Any], seed: int) -> bool:
            several = await asyncio.gather(*refs)
            return all(same(value, seed) for value in several)

    first = nodes.make.remote(10)
    plain = nodes.on_bare(Plain).remote(first)
    threaded = nodes.on_bare(Plain).options(max_concurrency=4).remote(first)
    awaiting = nodes.on_bare(Async).remote()
    answers = []
    for seed in range(11, 17):
        ref = nodes.make.remote(seed)
        answers += [actor.check.remote(ref, seed) for actor in (plain, threaded, awaiting)]
    shared = nodes.make.remote(17)
    answers.append(awaiting.wait_for.remote([shared] * 5, 17))
    assert all(nodes.ray.get(answers, timeout=60))


def loop_goes_on(nodes: Nodes) -> None:
    """While an argument of an async actor is fetched from a bridge that is stopped, its coroutines run."""

    class Async:
        def __init__(self) -> None:
            self.beats = 0

        async def beat(self) -> None:
            while True:
                self.beats += 1
                await asyncio.sleep(0.01)

        async def watch(self) -> int:
            start = self.beats
            await asyncio.sleep(1.0)
            return self.beats - start

        async def check(self, value: Any) -> bool:
            return same(value, 18)

    actor = nodes.on_bare(Async).remote()
    actor.beat.remote()
    watching = actor.watch.remote()
    with stopped_bridges(nodes):
        checking = actor.check.remote(nodes.make.remote(18))
        ready, _ = nodes.ray.wait([checking], timeout=1.5)
        assert not ready
    assert nodes.ray.get(checking, timeout=60)
    assert nodes.ray.get(watching, timeout=60) > 5


def awaits(nodes: Nodes) -> None:
    assert same(nodes.make.remote(19).future().result(timeout=60), 19)

    async def wait() -> None:
        assert same(await nodes.make.remote(20), 20)
        values = await asyncio.gather(*(nodes.make.remote(seed) for seed in range(20)))
        assert all(same(value, seed) for seed, value in enumerate(values))

    asyncio.run(asyncio.wait_for(wait(), 60))

    def fails() -> None:
        raise KeyError("that")

    error = nodes.on_pool(fails).remote().future().exception(timeout=60)
    assert isinstance(error, KeyError)


def generators(nodes: Nodes) -> None:
    def stream() -> Any:
        for seed in range(21, 26):
            yield array(seed)

    for seed, ref in enumerate(nodes.on_pool(stream).options(num_returns="streaming").remote(), 21):
        assert same(nodes.ray.get(ref), seed)

    def read(stream: Any) -> bool:
        import ray

        return all(same(ray.get(ref), seed) for seed, ref in enumerate(stream.remote(), 21))

    streaming = nodes.on_pool(stream).options(num_returns="streaming")
    assert nodes.ray.get(nodes.on_bare(read).remote(streaming))

    async def follow() -> None:
        seed = 21
        async for ref in streaming.remote():
            assert same(await ref, seed)
            seed += 1

    asyncio.run(asyncio.wait_for(follow(), 60))


def unpickling_that_gets(nodes: Nodes) -> None:
    """A value whose own unpickling asks for another one: in ray.get, by a future, as an argument."""

    class Asks:
        def __init__(self, ref: Any) -> None:
            self.ref = ref
            self.load = array(27)

        def __reduce__(self) -> tuple[Any, ...]:
            def rebuild(ref: Any, load: Any) -> Any:
                import ray

                return ray.get(ref[0]), load

            return rebuild, ([self.ref], self.load)

    def make() -> Any:
        import ray

        return Asks(ray.put(array(28)))

    def read(both: Any) -> bool:
        return same(both[0], 28) and same(both[1], 27)

    assert read(nodes.ray.get(nodes.on_pool(make).remote(), timeout=60))
    assert read(nodes.on_pool(make).remote().future().result(timeout=60))
    assert nodes.ray.get(nodes.on_bare(read).remote(nodes.on_pool(make).remote()), timeout=60)


def errors(nodes: Nodes) -> None:
    """What a task raises arrives, with a large value in it; so does what a value's unpickling raises."""

    def fails() -> None:
        raise ValueError("big", array(29))

    with pytest.raises(nodes.ray.exceptions.RayTaskError) as info:
        nodes.ray.get(nodes.on_pool(fails).remote())
    assert same(info.value.cause.args[1], 29)

    class Broken:
        def __reduce__(self) -> tuple[Any, ...]:
            def rebuild(_: Any) -> Any:
                raise ValueError("does not come to life")

            return rebuild, (array(30),)

    with pytest.raises(nodes.ray.exceptions.RaySystemError) as info:
        nodes.ray.get(nodes.on_pool(lambda: Broken()).remote())
    assert "does not come to life" in str(info.value)


def lost(nodes: Nodes) -> None:
    def delete_all() -> int:
        from gismo_core.ray import record, session

        store = session.open_store()
        assert store is not None
        gone = store.sealed(tag=record.TAG, mask=record.TAG_MASK)
        for one in gone:
            store.delete(one.handle)
        return len(gone)

    ref = nodes.make.remote(31)
    nodes.ray.wait([ref])
    assert nodes.ray.get(nodes.on_pool(delete_all).remote()) >= 1
    expected = nodes.ray.exceptions.ObjectLostError
    with pytest.raises(expected) as info:
        nodes.ray.get(ref)
    assert ref.hex() in str(info.value)
    assert isinstance(ref.future().exception(timeout=60), expected)
    with pytest.raises(nodes.ray.exceptions.RayTaskError) as info:
        nodes.ray.get(nodes.on_bare(lambda value: 1).remote(ref))
    assert isinstance(info.value.cause, expected)


def time_outs(nodes: Nodes) -> None:
    ref = nodes.make.remote(32)
    nodes.ray.wait([ref])
    with stopped_bridges(nodes):
        for timeout in (1.0, 0):
            try:
                nodes.ray.get(ref, timeout=timeout)
            except nodes.ray.exceptions.GetTimeoutError:
                continue
            raise AssertionError("nothing was raised")

    def there_at_once() -> bool:
        try:
            return same(nodes.ray.get(ref, timeout=0), 32)
        except nodes.ray.exceptions.GetTimeoutError:
            return False

    until(there_at_once, "ray.get(timeout=0) in a loop")


def once_per_record(nodes: Nodes) -> None:
    """Several readers at once, and one after the other while one holds it: one copy. None left when all let go."""
    ref = nodes.make.remote(33, MiB)

    class Holder:
        def take(self, refs: list[Any]) -> bool:
            import ray

            self.value = ray.get(refs[0])
            return same(self.value, 33, MiB)

        def drop(self) -> None:
            del self.value

    before = nodes.status()["made"]
    holders = [nodes.on_bare(Holder).remote() for _ in range(3)]
    assert all(nodes.ray.get([holder.take.remote([ref]) for holder in holders]))
    nodes.ray.get([holder.drop.remote() for holder in holders[1:]])
    time.sleep(1.0)
    mine = nodes.ray.get(ref)
    assert nodes.status()["made"] == before + 1
    del ref
    gc.collect()
    until(lambda: nodes.ray.get(nodes.on_pool(records).remote()) == 0, "the record freed while copies are held")
    assert same(mine, 33, MiB)
    nodes.ray.kill(holders[0])
    assert nodes.status()["held"] >= 1
    del mine
    nothing_held(nodes)


def data(nodes: Nodes) -> None:
    """Blocks made where the pool is, mapped where it is not, taken by the driver."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    source = ray.data.range(40, override_num_blocks=4)
    big = source.map_batches(
        lambda batch: {"x": np.repeat(batch["id"][:, None], 20_000, axis=1)}, resources={"pool": 1}, num_cpus=0.1
    )
    added = big.map_batches(lambda batch: {"x": batch["x"] + 1}, resources={"bare": 1}, num_cpus=0.1)
    seen = sorted(int(row["x"][0]) for row in added.iter_rows())
    assert seen == list(range(1, 41))
    table = [batch["x"].sum() for batch in big.iter_batches(batch_size=10)]
    assert sum(table) == 20_000 * sum(range(40))


def writes_as_ray_does(nodes: Nodes) -> None:
    held = nodes.ray.get(nodes.on_pool(records).remote())
    mine = nodes.ray.put(array(34))
    assert nodes.ray.get(nodes.on_pool(lambda value: same(value, 34)).remote(mine))
    back = nodes.on_bare(lambda value: value).remote(nodes.make.remote(35))
    assert same(nodes.ray.get(back), 35)
    del back
    until(lambda: nodes.ray.get(nodes.on_pool(records).remote()) <= held, "only what the pool's node made is there")


def bridge_killed(nodes: Nodes) -> None:
    """SIGKILL while it copies, and after: the values arrive, or what is held stays valid."""
    held = nodes.ray.get(nodes.make.remote(36, 2 * MiB))
    refs = [nodes.make.remote(seed, 9 * MiB) for seed in range(37, 41)]
    nodes.ray.wait(refs, num_returns=len(refs))
    futures = [ref.future() for ref in refs]
    for _ in range(3):
        kill_bridges(nodes)
        time.sleep(0.3)
    for seed, (ref, future) in enumerate(zip(refs, futures, strict=True), 37):
        assert same(future.result(timeout=90), seed, 9 * MiB)
        assert same(nodes.ray.get(ref, timeout=90), seed, 9 * MiB)
    assert same(held, 36, 2 * MiB)
    assert nodes.ray.get(nodes.on_bare(lambda value: same(value, 37, 9 * MiB)).remote(refs[0]), timeout=90)


def keeper_killed(nodes: Nodes) -> None:
    from gismo_core.ray import without

    ref = nodes.make.remote(41)
    nodes.ray.wait([ref])
    without._fetcher()._bridges.clear()
    os.kill(pid_of(nodes.keeper()), signal.SIGKILL)
    assert same(nodes.ray.get(ref, timeout=90), 41)


def keeper_gone(nodes: Nodes) -> None:
    """For good, as when it was started on a node without the pool: another one is made, and lends tokens."""
    nodes.ray.kill(nodes.keeper())

    def another_lends() -> bool:
        assert same(nodes.ray.get(nodes.make.remote(45)), 45)
        try:
            return bool(nodes.ray.get(nodes.keeper().status.remote())["leased"])
        except (LookupError, nodes.ray.exceptions.RayActorError):
            return False

    until(another_lends, "another keeper")


def nothing_held(nodes: Nodes) -> None:
    """No record, no copy, no lease, and nothing in Ray's own stores."""
    from ray._private.internal_api import node_stats

    gc.collect()
    until(lambda: nodes.ray.get(nodes.on_pool(records).remote()) == 0, "the pool is empty")
    until(lambda: not {name for name in ("held", "leases") if nodes.status().get(name)}, "the bridges hold nothing")

    def used() -> int:
        stats = [node_stats(one["NodeManagerAddress"], one["NodeManagerPort"]) for one in nodes.ray.nodes()]
        return sum(int(one.store_stats.object_store_bytes_used) for one in stats)

    until(lambda: used() < SMALL, "Ray's own stores are empty")


def first_get(nodes: Nodes) -> None:
    """Nobody said GISMO_STORE: the first value in ray.get, then a future, and tasks."""
    assert "GISMO_STORE" not in os.environ
    assert "gismo_core.ray.reading" not in sys.modules
    assert same(nodes.ray.get(nodes.make.remote(42), timeout=60), 42)
    awaits(nodes)


def first_await(nodes: Nodes) -> None:
    assert "gismo_core.ray.reading" not in sys.modules
    ref = nodes.make.remote(43)
    error = ref.future().exception(timeout=60)
    assert isinstance(error, nodes.ray.exceptions.RaySystemError)
    assert "await it again" in str(error)
    assert same(ref.future().result(timeout=60), 43)
    assert same(nodes.ray.get(ref), 43)


def first_argument(nodes: Nodes) -> None:
    """Workers without the variable: their first value is a task's argument."""

    class Async:
        async def check(self, value: Any) -> bool:
            return same(value, 44) and "GISMO_STORE" not in os.environ

    class Plain:
        def check(self, value: Any) -> bool:
            return same(value, 44) and "GISMO_STORE" not in os.environ

    ref = nodes.make.remote(44)
    unset = {"py_executable": f"env -u GISMO_STORE {sys.executable}"}
    actors_ = [
        nodes.on_bare(Async).options(runtime_env=unset).remote(),
        nodes.on_bare(Plain).options(runtime_env=unset).remote(),
        nodes.on_bare(Plain).options(runtime_env=unset, max_concurrency=3).remote(),
    ]
    assert nodes.ray.get([actor.check.remote(ref) for actor in actors_], timeout=90) == [True] * 3
