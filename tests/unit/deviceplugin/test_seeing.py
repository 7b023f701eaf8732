"""What an agent says of itself: events, metrics, and whether it is alive."""

from __future__ import annotations

from typing import Any

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gismo_deviceplugin import status
from gismo_deviceplugin.health import Beat
from gismo_deviceplugin.kubelet.shares import Tenant
from gismo_deviceplugin.metrics import Metrics, Share, Snapshot
from gismo_deviceplugin.pool.member import Failure, Report

NODE = {"metadata": {"name": "rack1.a", "uid": "uid-1", "generation": 1}}
FINE = Report(3, 1 << 30, "boot", "nonce", True, ready=("one", "two"))
WAITING = Report(3, 1 << 30, "boot", "nonce", None, waiting=("one", "two"))
UNFIT = Report(None, None, "boot", None, None, failures=(Failure("", "MemoryUnfit", "mount one tmpfs there"),))


def made(report: Report, before: dict[str, Any]) -> dict[str, Any]:
    return status.status(report, before, "2026-01-01T00:00:00Z", 1)


def told(before: Report | None, now: Report) -> list[tuple[bool, str, str]]:
    was = made(before, {}) if before is not None else {}
    found = list(status.occurrences(NODE, was, made(now, was)))
    assert all((one.kind, one.name, one.uid) == ("GismoNode", "rack1.a", "uid-1") for one in found)
    return [(one.is_warning, one.reason, one.note) for one in found]


def test_failing_and_its_end_are_told_and_waiting_is_not() -> None:
    ready = (False, "Ready", "2 Gismo namespaces of the pool are ready on this node")
    assert told(None, WAITING) == []
    assert told(WAITING, FINE) == told(None, FINE) == told(UNFIT, FINE) == [ready]
    assert told(FINE, FINE) == told(UNFIT, UNFIT) == told(FINE, WAITING) == []
    assert told(WAITING, UNFIT) == told(None, UNFIT) == [(True, "MemoryUnfit", "mount one tmpfs there")]


def test_metrics_are_those_of_the_last_round() -> None:
    metrics = Metrics()

    def shown() -> dict[str, float]:
        return {
            f"{one.name}{[value for _, value in sorted(one.labels.items())]}": one.value
            for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
            for one in family.samples
        }

    assert not [name for name in shown() if name.startswith("gismo_node_")]
    tenant = Tenant("rack1", "one", "uuid", 64, "", False, "")
    shares = (Share(tenant, healthy=True, registered=False, held=3),)
    metrics.found(Snapshot({"rack1": made(FINE, {}), "rack2": made(UNFIT, {})}, {"rack1": 1}, shares))
    now = shown()
    assert now["gismo_node_status_condition['Ready', 'rack1', 'true']"] == 1
    assert now["gismo_node_status_condition['Ready', 'rack2', 'true']"] == 0
    assert now["gismo_node_status_condition['SameMemory', 'rack2', 'unknown']"] == 1
    assert [now[f"gismo_node_namespaces['rack1', '{one}']"] for one in ("ready", "waiting", "failing")] == [2, 1, 0]
    assert now["gismo_node_layout_version['rack1']"] == 3
    assert "gismo_node_layout_version['rack2']" not in now, "nothing is said that was not observed"
    assert now["gismo_node_shares['one', 'rack1']"] == 64
    assert now["gismo_node_shares_held['one', 'rack1']"] == 3
    assert now["gismo_deviceplugin_registered['one', 'rack1']"] == 0
    metrics.found(Snapshot({}, {}, (Share(tenant, healthy=False, registered=True, held=3),)))
    now = shown()
    assert now["gismo_node_shares['one', 'rack1']"] == 0
    assert not [name for name in now if name.startswith("gismo_node_status")]


def test_what_stands_still_is_not_alive() -> None:
    now = 0.0
    beat = Beat("the round", 300.0, clock=lambda: now)
    now = 299.0
    assert list(beat.problems()) == []
    beat(1 << 20, 1 << 30)  # as formatting calls it
    now = 599.0
    assert list(beat.problems()) == []
    now = 600.0
    assert list(beat.problems()) == ["the round stands still since 301 s"]
