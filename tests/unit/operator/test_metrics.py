"""The operator's metrics: of the leader alone, and no series of what is gone."""

from __future__ import annotations

from typing import Any

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import kube_objects as make
from gismo_operator.metrics import Metrics
from gismo_operator.process import live_problems
from gismo_operator.reconcile import plan

LEADS = [True]


def shown(metrics: Metrics) -> dict[str, float]:
    text = generate_latest(metrics.registry).decode()
    return {
        f"{one.name}{sorted(one.labels.items())}": one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_a_pool_is_shown_while_it_is_there_and_by_the_leader() -> None:
    leads = True
    metrics = Metrics(lambda: leads, lambda: 3)
    wanted: Any = make.pool(make.tenant("team-a", "64Mi"))
    first = plan.decide(make.observed(wanted, cluster=make.cluster("a", "b")))
    observed = make.observed(wanted, cluster=make.cluster("a", "b"), namespaces=make.stored(first.ranges.values()))
    metrics.carried_out(observed, plan.decide(observed))
    now = shown(metrics)
    pool = ("pool", "rack1")
    assert now[f"gismo_pool_capacity_bytes{[pool]}"] == 1 << 30
    assert now[f"gismo_pool_free_bytes{[pool]}"] == (1 << 30) - (64 << 20)
    assert now[f"gismo_pool_nodes{[pool]}"] == 0
    assert now[f"gismo_pool_hosts{[pool, ('standing', 'Active')]}"] == 2
    condition = ("condition", "Ready")
    assert [
        now[f"gismo_pool_status_condition{[condition, pool, ('status', one)]}"] for one in ("true", "false", "unknown")
    ] == [0, 1, 0]
    of_range = [("gismo_namespace", "team-a"), pool]
    assert now[f"gismo_namespace_size_bytes{of_range}"] == 64 << 20
    assert now[f"gismo_namespace_state{[*of_range, ('state', 'Active')]}"] == 1
    assert now["gismo_operator_pools_due[]"] == 3
    leads = False
    now = shown(metrics)
    assert now["gismo_operator_leader[]"] == 0
    assert not [name for name in now if name.startswith(("gismo_pool_", "gismo_namespace_"))]
    leads = True
    # The pool goes, its range is being released: then that too is gone.
    gone = make.observed(None, namespaces=make.stored(first.ranges.values()))
    metrics.carried_out(gone, plan.decide(gone))
    now = shown(metrics)
    assert f"gismo_pool_capacity_bytes{[pool]}" not in now
    assert now[f"gismo_namespace_state{[*of_range, ('state', 'Releasing')]}"] == 1
    nothing = make.observed(None)
    metrics.carried_out(nothing, plan.decide(nothing))
    assert not [name for name in shown(metrics) if name.startswith(("gismo_pool_", "gismo_namespace_"))]


def test_looks_are_counted_by_how_they_ended() -> None:
    metrics = Metrics(lambda: False, lambda: 0)
    with metrics.look():
        metrics.looked("written")
    metrics.looked("written")
    now = shown(metrics)
    counts = {
        one: now[f"gismo_operator_reconcile_total{[('result', one)]}"]
        for one in ("written", "error", "stale", "unchanged")
    }
    assert counts == {"written": 2, "error": 0, "stale": 0, "unchanged": 0}
    assert now["gismo_operator_reconcile_duration_seconds_count[]"] == 1


def test_what_only_a_new_start_mends() -> None:
    def problems(**more: Any) -> list[str]:
        said = {"worker_runs": True, "looking": None, "stands": True, "unwatched": (), "now": 1000.0, **more}
        return list(live_problems(**said))

    assert problems() == []
    assert problems(looking=("rack1", 401.0)) == []
    assert problems(looking=("rack1", 399.0)) == ["the look at pool rack1 hangs, since 601 s"]
    assert problems(worker_runs=False) == ["the worker has ended: no pool is looked at"]
    assert problems(stands=False) == ["the election has ended: this replica will never lead"]
    assert problems(unwatched=["the watch of nodes is dead"]) == ["the watch of nodes is dead"]
