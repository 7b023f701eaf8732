"""A pipeline of actors, each on a node of its own, that hand on large Arrow tables."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from gismo_core.bench.clusters.work.cluster import Here

_COLUMNS = 16


class Loader:
    """Makes tables, as one that reads files would."""

    def __init__(self) -> None:
        self.base: Any = None

    def load(self, nbytes: int, number: int) -> Any:
        """A table of that size; its columns are numbered, and all of them hold `number` more."""
        rows = nbytes // 8 // _COLUMNS
        if self.base is None:
            self.base = np.arange(rows, dtype=np.float64)
        columns = {f"c{column}": pa.array(self.base + (column + number)) for column in range(_COLUMNS)}
        return pa.table(columns)


class Enricher:
    """Adds a column; what it was given goes on as it is."""

    def enrich(self, table: Any) -> Any:
        """With the sum of the first two columns as another."""
        return table.append_column("sum", pc.add(table["c0"], table["c1"]))


class Scorer:
    """Reads three of the columns."""

    def score(self, table: Any) -> float:
        """The mean of what the enricher added, and of two others."""
        return float(pc.mean(table["sum"]).as_py() + pc.mean(table["c2"]).as_py() + pc.mean(table["c9"]).as_py())


def run(here: Here, nbytes: int, batches: int) -> dict[str, float]:
    """So many tables through loader, enricher and scorer, two on the way at a time; seconds."""
    if "stages" not in here.kept:
        places = [1, 2, 3] if len(here.nodes) > 3 else [0, 0, 0]
        stages = zip((Loader, Enricher, Scorer), places, strict=True)
        here.kept["stages"] = [here.actor(kind, place) for kind, place in stages]
    loader, enricher, scorer = here.kept["stages"]
    rows = nbytes // 8 // _COLUMNS
    begin = time.perf_counter()
    scores: list[Any] = []
    for number in range(batches):
        if number >= 2:
            ray.wait([scores[number - 2]])
        scores.append(scorer.score.remote(enricher.enrich.remote(loader.load.remote(nbytes, number))))
    found = ray.get(scores)
    pipeline_s = time.perf_counter() - begin
    middle = (rows - 1) / 2
    for number, score in enumerate(found):
        # (c0 + c1) + c2 + c9
        wanted = 4 * (middle + number) + 1 + 2 + 9
        if abs(score - wanted) > 1e-6 * wanted:
            raise RuntimeError(f"table {number} gave {score}, not {wanted}")
    return {"pipeline_s": pipeline_s}
