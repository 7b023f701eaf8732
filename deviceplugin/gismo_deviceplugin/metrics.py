"""The agent's metrics. docs/kubernetes.md has the table.

All are of this node; which node that is, Prometheus knows from the pod. What is told of pools is what the statuses of the
GismoNodes say, as of the last round.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from prometheus_client import Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gismo_deviceplugin.kubelet.shares import Tenant
from gismo_kube import endpoint
from gismo_kube.occurrence import Occurrence

_FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_SLOW_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 300)


@dataclass(frozen=True, slots=True)
class Share:
    """What is offered to the kubelet of one Gismo namespace."""

    tenant: Tenant
    healthy: bool
    registered: bool  # with the kubelet that runs now
    held: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a round found."""

    statuses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of GismoNodes, by pool
    waiting: Mapping[str, int] = field(default_factory=dict)  # Gismo namespaces that wait for others, by pool
    shares: tuple[Share, ...] = ()


class Metrics:
    """Of one agent. Safe to use from several threads."""

    def __init__(self) -> None:
        self.registry = endpoint.registry("agent", version("gismo-cxl"))
        self._lock = threading.Lock()
        self._snapshot = Snapshot()
        self.rounds = Counter("gismo_agent_rounds", "Rounds, by how they ended.", ["result"], registry=self.registry)
        for result in ("done", "no_kubelet", "no_api_server"):
            self.rounds.labels(result)
        self.round_seconds = Histogram(
            "gismo_agent_round_duration_seconds", "How long a round takes.", buckets=_SLOW_S, registry=self.registry
        )
        self.registrations = Counter(
            "gismo_deviceplugin_registrations", "Of resources with the kubelet.", ["result"], registry=self.registry
        )
        for result in ("done", "failed"):
            self.registrations.labels(result)
        self._requests = Counter(
            "gismo_deviceplugin_requests", "Of the kubelet, by gRPC method and code.", ["method", "code"],
            registry=self.registry,
        )  # fmt: skip
        self._request_seconds = Histogram(
            "gismo_deviceplugin_request_duration_seconds", "How long the kubelet waits for an answer.", ["method"],
            buckets=_FAST_S, registry=self.registry,
        )  # fmt: skip
        for method in ("Allocate", "PreStartContainer"):
            self._request_seconds.labels(method)
        self._events = Counter(
            "gismo_events", "What was to be told as events of Kubernetes.", ["type", "result"], registry=self.registry
        )
        self.registry.register(_OfNode(self))

    def request(self, method: str, code: str, seconds: float) -> None:
        """The kubelet asked."""
        self._requests.labels(method, code).inc()
        self._request_seconds.labels(method).observe(seconds)

    def told(self, one: Occurrence, result: str) -> None:
        """An event."""
        self._events.labels("Warning" if one.is_warning else "Normal", result).inc()

    def found(self, snapshot: Snapshot) -> None:
        """By a round: told from now on."""
        with self._lock:
            self._snapshot = snapshot

    def snapshot(self) -> Snapshot:
        """The newest."""
        with self._lock:
            return self._snapshot


class _OfNode(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return families(self._metrics.snapshot())


def families(found: Snapshot) -> Iterable[Metric]:
    """Of one round."""
    condition = GaugeMetricFamily(
        "gismo_node_status_condition", "1 for the status that a condition of this node's GismoNode has, else 0.",
        labels=["pool", "condition", "status"],
    )  # fmt: skip
    namespaces = GaugeMetricFamily(
        "gismo_node_namespaces", "Gismo namespaces on this node: ready, failing, or waiting for others.",
        labels=["pool", "state"],
    )  # fmt: skip
    layout = GaugeMetricFamily("gismo_node_layout_version", "The layout that was reached.", labels=["pool"])
    capacity = GaugeMetricFamily("gismo_node_capacity_bytes", "The memory that this node sees.", labels=["pool"])
    for pool, status in sorted(found.statuses.items()):
        for one in status["conditions"]:
            for value in ("True", "False", "Unknown"):
                condition.add_metric([pool, one["type"], value.lower()], float(one["status"] == value))
        counts = {"ready": status["ready"], "failing": status["failing"], "waiting": found.waiting.get(pool, 0)}
        for state, count in counts.items():
            namespaces.add_metric([pool, state], count)
        for family, name in ((layout, "layoutVersion"), (capacity, "capacityBytes")):
            if name in status:
                family.add_metric([pool], status[name])
    of_range = ["pool", "gismo_namespace"]
    shares = GaugeMetricFamily("gismo_node_shares", "Shares that the kubelet may give out.", labels=of_range)
    held = GaugeMetricFamily("gismo_node_shares_held", "Shares that containers hold.", labels=of_range)
    registered = GaugeMetricFamily(
        "gismo_deviceplugin_registered",
        "1 where the kubelet that runs now knows the resource, else 0.",
        labels=of_range,
    )
    for share in found.shares:
        labels = [share.tenant.pool, share.tenant.namespace]
        shares.add_metric(labels, share.tenant.shares if share.healthy else 0)
        held.add_metric(labels, share.held)
        registered.add_metric(labels, float(share.registered))
    yield from (condition, namespaces, layout, capacity, shares, held, registered)
