"""Ray Data over rows of a key and an embedding of 4 KiB."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import ray

from gismo_core.bench.clusters.work.cluster import Here

_WIDTH = 1024
ROW_BYTES = 4 * _WIDTH + 8
_GROUPS = 64


def _rows(batch: Any) -> Any:
    """Keys in no order, that can be told again from the id; the embedding has the key in it."""
    number = batch["id"].astype(np.uint64)
    key = ((number * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(24)).astype(np.int64)
    generator = np.random.default_rng(int(number[0]))
    embedding = generator.random((len(key), _WIDTH), dtype=np.float32)
    embedding[:, 0] = (key % 1000).astype(np.float32)
    return {"key": key, "group": key % _GROUPS, "embedding": embedding}


def _dataset(nbytes: int, blocks: int) -> Any:
    import ray.data

    rows = nbytes // ROW_BYTES
    return ray.data.range(rows, override_num_blocks=blocks).map_batches(_rows, batch_size=None), rows


def settings(here: Here, compression: str | None) -> dict[str, Any]:
    """Quiet; and stock's compression as asked. None: as it is by itself. What counts now."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if compression is not None:
        context.shuffle_compression = None if compression == "none" else compression
    return {
        "shuffle_compression": context.shuffle_compression,
        "memory_fraction": context.override_object_store_memory_limit_fraction,
    }


class Looker:
    """Looks at blocks, one after the other."""

    def look(self, refs: list[Any]) -> tuple[int, bool, int, int]:
        """A block's rows, whether they are in order, the first key and the last. RuntimeError: a row is not whole."""
        from ray.data.block import BlockAccessor

        found = BlockAccessor.for_block(ray.get(refs[0])).to_numpy(["key", "embedding"])
        keys = found["key"]
        if not np.array_equal(found["embedding"][:, 0], (keys % 1000).astype(np.float32)):
            raise RuntimeError("a row's embedding is not its key's")
        if not len(keys):
            return 0, True, 0, 0
        return len(keys), bool(np.all(keys[1:] >= keys[:-1])), int(keys[0]), int(keys[-1])


def _check(here: Here, done: Any, rows: int, *, ordered: bool) -> None:
    """The content, block by block, not timed. By one actor without a CPU: a finished sort holds on to all CPUs for as
    long as its result lives, and as many tasks as blocks would be as many new workers."""
    looker = here.actor(Looker, len(here.nodes) - 1)
    parts = [ray.get(looker.look.remote([ref])) for ref in done.get_internal_block_refs()]
    ray.kill(looker)
    found = sum(count for count, *_ in parts)
    if found != rows:
        raise RuntimeError(f"{found} rows came out, of {rows}")
    if ordered:
        edges = [edge for count, _, *ends in parts if count for edge in ends]
        if edges != sorted(edges) or not all(right for _, right, *_ in parts):
            raise RuntimeError("the rows are not in order")


def sort(here: Here, nbytes: int, blocks: int) -> dict[str, float]:
    """Sort by key, all in memory; seconds."""
    dataset, rows = _dataset(nbytes, blocks)
    begin = time.perf_counter()
    done = dataset.sort("key").materialize()
    seconds = time.perf_counter() - begin
    _check(here, done, rows, ordered=True)
    return {"seconds": seconds}


def random_shuffle(here: Here, nbytes: int, blocks: int) -> dict[str, float]:
    """Shuffle at random, all in memory; seconds."""
    dataset, rows = _dataset(nbytes, blocks)
    begin = time.perf_counter()
    done = dataset.random_shuffle(seed=7).materialize()
    seconds = time.perf_counter() - begin
    _check(here, done, rows, ordered=False)
    return {"seconds": seconds}


def _mean(group: Any) -> Any:
    return {
        "group": group["group"][:1],
        "count": np.array([len(group["group"])]),
        "mean": group["embedding"].mean(axis=0, keepdims=True),
    }


def groupby(here: Here, nbytes: int, blocks: int) -> dict[str, float]:
    """The mean embedding of each of 64 groups, by map_groups; seconds."""
    dataset, rows = _dataset(nbytes, blocks)
    begin = time.perf_counter()
    found = dataset.groupby("group").map_groups(_mean, batch_format="numpy").take_all()
    seconds = time.perf_counter() - begin
    if len(found) != _GROUPS or sum(row["count"] for row in found) != rows:
        raise RuntimeError(f"{len(found)} groups of {sum(row['count'] for row in found)} rows came out")
    return {"seconds": seconds}


class Trainer:
    """One of the training workers."""

    def epoch(self, shard: Any) -> tuple[int, float]:
        """Take all batches; how many rows, and a sum over them."""
        rows, summed = 0, 0.0
        for batch in shard.iter_batches(batch_size=1024, prefetch_batches=1):
            rows += len(batch["key"])
            summed += float(batch["embedding"].sum())
        return rows, summed


def ingest(here: Here, nbytes: int, blocks: int) -> dict[str, float]:
    """Data → one training actor on each node; seconds of the second epoch.

    In the first one Ray starts the actor that hands out the blocks: two seconds of one core, with Gismo and without.
    """
    if "trainers" not in here.kept:
        here.kept["trainers"] = [here.actor(Trainer, number) for number in range(len(here.nodes))]
    dataset, rows = _dataset(nbytes, blocks)
    shards = dataset.streaming_split(len(here.nodes), equal=False)
    seconds = 0.0
    for _ in range(2):
        begin = time.perf_counter()
        found = ray.get(
            [trainer.epoch.remote(shard) for trainer, shard in zip(here.kept["trainers"], shards, strict=True)]
        )
        seconds = time.perf_counter() - begin
        if sum(count for count, _ in found) != rows:
            raise RuntimeError(f"the trainers saw {found}, of {rows} rows")
    return {"seconds": seconds}
