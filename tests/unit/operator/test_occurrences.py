"""Which changes of conditions are told as events: each once, and nothing of what passes by itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

import kube_objects as make
from gismo_operator.api.v1alpha1 import Standing
from gismo_operator.conditions import Said, merged
from gismo_operator.reconcile import occurrences, plan

NOW = "2026-01-01T00:00:00Z"
FINE = (
    Said("Ready", True, "Ready", "on 2 nodes"),
    Said("Progressing", False, "Stable"),
    Said("Degraded", False, "AsExpected"),
)


def said(ready: Said | None = None, progressing: Said | None = None, degraded: Said | None = None) -> tuple[Said, ...]:
    return (ready or FINE[0], progressing or FINE[1], degraded or FINE[2])


def of_pool(before: Iterable[Said], now: Iterable[Said]) -> list[tuple[bool, str, str]]:
    pool = make.pool(make.tenant("team-a"))
    conditions = merged([], before, NOW, 1)
    pool = pool.model_copy(update={"status": pool.status.model_copy(update={"conditions": conditions})})
    found = list(occurrences.of_pool(pool, now))
    assert all((one.kind, one.name, one.uid) == ("GismoPool", make.POOL, "uid-1") for one in found)
    return [(one.is_warning, one.reason, one.note) for one in found]


CARVING = said(Said("Ready", False, "NodesNotReady", "0 of 2"), Said("Progressing", True, "Carving", "on a, b"))
FAILED = said(Said("Ready", False, "NodesNotReady", "1 of 2 nodes; not b: mount it"))
NO_NODES = said(Said("Ready", False, "NoNodes", "see kubectl"))
FULL = said(
    Said("Ready", False, "DoesNotFit", "ask for less"), None, Said("Degraded", True, "DoesNotFit", "ask for less")
)
OTHER = said(
    Said("Ready", False, "NodesNotReady", "x"), None, Said("Degraded", True, "NotTheSameMemory", "b: mount it")
)
KEPT = said(None, Said("Progressing", True, "Quarantined", "64Mi are used by x/y on a"))
WAITING = said(None, Said("Progressing", True, "WaitingForUse", "team-a is in use by x/y on a"))


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ((), CARVING, []),
        (CARVING, FINE, [(False, "Ready", "every Gismo namespace is ready on 2 nodes")]),
        (FINE, FINE, []),
        (FINE, CARVING, []),
        ((), NO_NODES, [(True, "NoNodes", "see kubectl")]),
        (NO_NODES, NO_NODES, []),
        (CARVING, FAILED, [(True, "NodesNotReady", "1 of 2 nodes; not b: mount it")]),
        (FAILED, FAILED, []),
        ((), FULL, [(True, "DoesNotFit", "ask for less")]),
        (FULL, FULL, []),
        (FULL, OTHER, [(True, "NotTheSameMemory", "b: mount it")]),
        (FULL, FINE, [(False, "Recovered", "DoesNotFit is over: ask for less"), (False, "Ready", "every Gismo namespace is ready on 2 nodes")]),
        (FULL, FAILED, [(False, "Recovered", "DoesNotFit is over: ask for less"), (True, "NodesNotReady", "1 of 2 nodes; not b: mount it")]),
        (FINE, WAITING, [(False, "WaitingForUse", "team-a is in use by x/y on a")]),
        (WAITING, WAITING, []),
        (WAITING, KEPT, [(False, "Quarantined", "64Mi are used by x/y on a")]),
        (KEPT, KEPT, []),
    ],
)  # fmt: skip
def test_of_a_pool(before: tuple[Said, ...], now: tuple[Said, ...], told: list[tuple[bool, str, str]]) -> None:
    assert of_pool(before, now) == told


def test_other_words_for_the_same_are_not_told() -> None:
    other = said(FULL[0], None, Said("Degraded", True, "DoesNotFit", "two do not fit now"))
    assert of_pool(FULL, other) == []


def decided(**more: Any) -> tuple[plan.Plan, Any]:
    wanted = make.pool(make.tenant("team-a", access={"kubernetesNamespaces": ["x", "y"]}), make.tenant("nobody"))
    observed = make.observed(wanted, cluster=make.cluster("a", "b"))
    for said in ({}, more):  # who writes is decided when the GismoNodes are there
        made = plan.decide(observed)
        observed = make.observed(
            wanted,
            cluster=make.cluster("a", "b"),
            namespaces=make.stored(made.ranges.values()),
            nodes=make.nodes(made.nodes.values(), **said),
        )
    return plan.decide(observed), observed


def test_of_a_namespace() -> None:
    reached = {name: {"layoutVersion": 2} for name in ("a", "b")}
    now, observed = decided(**reached)
    told = {
        one.spec.namespace: [
            (each.is_warning, each.reason, each.note)
            for each in occurrences.of_namespace(one, now.ranges[one.spec.namespace], now.namespaces[one.spec.namespace].conditions)
        ]
        for one in observed.namespaces
    }  # fmt: skip
    share = "pods of the Kubernetes namespaces x, y get a share with `gismo.io/rack1.team-a: 1` in their limits"
    assert told["team-a"] == [(False, "Ready", f"on all of its 2 nodes; {share}")]
    assert "nobody's pods may use it" in told["nobody"][0][2]
    now, observed = decided()
    one = observed.namespaces[0]
    assert not list(occurrences.of_namespace(one, one.spec, now.namespaces[one.spec.namespace].conditions)), (
        "on its way"
    )
    failure = {"namespace": "team-a", "reason": "StoreNotReady", "message": "make it smaller"}
    now, observed = decided(a={"layoutVersion": 1, "failures": [failure]}, b={"layoutVersion": 1})
    (one,) = [each for each in observed.namespaces if each.spec.namespace == "team-a"]
    (event,) = occurrences.of_namespace(one, one.spec, now.namespaces["team-a"].conditions)
    assert (event.is_warning, event.reason, event.note) == (True, "StoreNotReady", "make it smaller")


def test_of_a_container_that_runs_ray_without_gismo() -> None:
    seen = {"namespace": "team-a", "holder": "x/head", "reason": "NotLoaded", "message": "take PythonPath"}
    now, observed = decided(a={"layoutVersion": 2, "notLoaded": [seen]}, b={"layoutVersion": 2})
    (one,) = [each for each in observed.namespaces if each.spec.namespace == "team-a"]
    said = now.namespaces["team-a"].conditions
    told = [(each.is_warning, each.reason, each.note) for each in occurrences.of_namespace(one, one.spec, said)]
    assert told[0] == (True, "NotLoaded", "on a: take PythonPath")
    assert [reason for _, reason, _ in told] == ["NotLoaded", "Ready"], "nothing of the pool fails by that"
    conditions = merged([], said, NOW, 1)
    again = one.model_copy(update={"status": one.status.model_copy(update={"conditions": conditions})})
    assert not list(occurrences.of_namespace(again, one.spec, said))


def test_of_a_node() -> None:
    _, observed = decided()
    node = observed.nodes[1]
    assert not list(occurrences.of_node(node, node.spec))
    for standing, is_warning, words in (
        (Standing.SUSPECT, True, 'gismo.io/confirmed-dead: "1"'),
        (Standing.DEAD, True, "is dead"),
    ):
        (event,) = occurrences.of_node(node, node.spec.model_copy(update={"standing": standing}))
        assert (event.is_warning, event.reason) == (is_warning, standing.value)
        assert words in event.note
    suspect = node.model_copy(update={"spec": node.spec.model_copy(update={"standing": Standing.SUSPECT})})
    (event,) = occurrences.of_node(suspect, node.spec)
    assert (event.is_warning, event.reason, event.note) == (False, "Active", "b is back: it gets shares again")
