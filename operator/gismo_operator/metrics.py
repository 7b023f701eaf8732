"""The operator's metrics. docs/kubernetes.md has the table.

What is told of pools is what their statuses say, and is kept by the leader alone: so that a sum over the replicas is right,
one that does not lead tells nothing of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gismo_kube import endpoint
from gismo_kube.occurrence import Occurrence
from gismo_operator.api import quantity
from gismo_operator.api.v1alpha1 import RangeSpec, RangeState, Standing
from gismo_operator.conditions import Said
from gismo_operator.reconcile.observed import Observed
from gismo_operator.reconcile.plan import Plan
from gismo_operator.reconcile.status import NamespaceSaid, PoolSaid

_STATUSES = {"true": True, "false": False, "unknown": None}


@dataclass(frozen=True, slots=True)
class Pool:
    """What is told of one pool."""

    said: PoolSaid | None  # None: it is gone, and its ranges are being released
    layout_version: int
    hosts: Mapping[Standing, int]
    namespaces: Mapping[str, tuple[RangeSpec, NamespaceSaid]]


def of_plan(observed: Observed, plan: Plan) -> Pool | None:
    """What is told after a plan was carried out; None: there is nothing left of that pool."""
    said = plan.pool if observed.wanted is not None else None
    if said is None and not plan.ranges:
        return None
    standings = [node.standing for node in plan.nodes.values()]
    return Pool(
        said,
        plan.layout_version,
        {standing: standings.count(standing) for standing in Standing},
        {name: (spec, plan.namespaces[name]) for name, spec in plan.ranges.items() if name in plan.namespaces},
    )


class Metrics:
    """Of one replica. Safe to use from several threads."""

    def __init__(self, leads: Callable[[], bool], due: Callable[[], int]) -> None:
        self.registry = endpoint.registry("operator", version("gismo-cxl"))
        self._pools: dict[str, Pool] = {}
        self._lock = threading.Lock()
        self._leads = leads
        self._looks = Counter(
            "gismo_operator_reconcile", "Looks at a pool, by how they ended.", ["result"], registry=self.registry
        )
        for result in ("unchanged", "written", "stale", "error"):
            self._looks.labels(result)
        self._seconds = Histogram(
            "gismo_operator_reconcile_duration_seconds", "How long a look at a pool takes.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30), registry=self.registry,
        )  # fmt: skip
        self._events = Counter(
            "gismo_events", "What was to be told as events of Kubernetes.", ["type", "result"], registry=self.registry
        )
        leader = Gauge("gismo_operator_leader", "1 on the replica that leads, else 0.", registry=self.registry)
        leader.set_function(lambda: float(leads()))
        depth = Gauge("gismo_operator_pools_due", "Pools that wait to be looked at.", registry=self.registry)
        depth.set_function(lambda: float(due()))
        self.registry.register(_Pools(self))

    @contextmanager
    def look(self) -> Iterator[None]:
        """Around one look at a pool."""
        with self._seconds.time():
            yield

    def looked(self, result: str) -> None:
        """How it ended."""
        self._looks.labels(result).inc()

    def carried_out(self, observed: Observed, plan: Plan) -> None:
        """From now on that is told of this pool."""
        told = of_plan(observed, plan)
        with self._lock:
            if told is None:
                self._pools.pop(observed.pool, None)
            else:
                self._pools[observed.pool] = told

    def told(self, one: Occurrence, result: str) -> None:
        """An event."""
        self._events.labels("Warning" if one.is_warning else "Normal", result).inc()

    def pools(self) -> Mapping[str, Pool]:
        """What is told now."""
        with self._lock:
            return dict(self._pools) if self._leads() else {}


class _Pools(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return families(self._metrics.pools())


def families(pools: Mapping[str, Pool]) -> Iterable[Metric]:
    """Of all pools; the names are always there, so that an alert can tell nothing from none."""
    condition = GaugeMetricFamily(
        "gismo_pool_status_condition", "1 for the status that a condition of a pool has, else 0.",
        labels=["pool", "condition", "status"],
    )  # fmt: skip
    sizes = {
        name: GaugeMetricFamily(f"gismo_pool_{name}_bytes", text, labels=["pool"])
        for name, text in (
            ("capacity", "What a pool has for Gismo namespaces."),
            ("allocated", "What the Gismo namespaces of a pool take."),
            ("free", "What is left of a pool."),
            ("largest_free", "The largest Gismo namespace that could be added to a pool now."),
        )
    }
    counts = {
        name: GaugeMetricFamily(f"gismo_pool_{name}", text, labels=["pool"])
        for name, text in (
            ("namespaces", "Gismo namespaces that a pool is asked for."),
            ("namespaces_ready", "Of them, those that are ready on all nodes."),
            ("nodes", "Nodes of a pool that are up."),
            ("nodes_ready", "Of them, those that are ready."),
            ("layout_version", "The layout that a pool has; each agent tells which it has reached."),
        )
    }
    hosts = GaugeMetricFamily(
        "gismo_pool_hosts", "Nodes with a host id in a pool, by what is thought of them.", labels=["pool", "standing"]
    )
    of_range = ["pool", "gismo_namespace"]
    range_condition = GaugeMetricFamily(
        "gismo_namespace_status_condition", "1 for the status that a condition of a Gismo namespace has, else 0.",
        labels=[*of_range, "condition", "status"],
    )  # fmt: skip
    range_size = GaugeMetricFamily("gismo_namespace_size_bytes", "How long its range is.", labels=of_range)
    range_nodes = GaugeMetricFamily("gismo_namespace_nodes_ready", "Nodes on which it is ready.", labels=of_range)
    range_state = GaugeMetricFamily(
        "gismo_namespace_state", "1 for the state of its range, else 0.", labels=[*of_range, "state"]
    )
    for pool, one in sorted(pools.items()):
        if one.said is not None:
            _conditions(condition, [pool], one.said.conditions)
            for name, family in sizes.items():
                size = getattr(one.said, name)
                if size is not None:
                    family.add_metric([pool], quantity.to_bytes(size))
            for name, text in (("namespaces", one.said.namespaces_ready), ("nodes", one.said.nodes_ready)):
                ready, _, of = text.partition("/")
                counts[name].add_metric([pool], int(of))
                counts[f"{name}_ready"].add_metric([pool], int(ready))
            counts["layout_version"].add_metric([pool], one.layout_version)
        for standing, count in one.hosts.items():
            hosts.add_metric([pool, standing.value], count)
        for name, (spec, said) in sorted(one.namespaces.items()):
            _conditions(range_condition, [pool, name], said.conditions)
            range_size.add_metric([pool, name], spec.size_bytes)
            range_nodes.add_metric([pool, name], int(said.nodes_ready.partition("/")[0]))
            for state in RangeState:
                range_state.add_metric([pool, name, state.value], float(spec.state is state))
    yield from (condition, *sizes.values(), *counts.values(), hosts)
    yield from (range_condition, range_size, range_nodes, range_state)


def _conditions(family: GaugeMetricFamily, labels: list[str], said: Iterable[Said]) -> None:
    for one in said:
        for status, value in _STATUSES.items():
            family.add_metric([*labels, one.type, status], float(one.is_true is value))
