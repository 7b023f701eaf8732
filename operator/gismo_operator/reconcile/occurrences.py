"""What is told as an event: where a condition, or what is thought of a node, has changed. Pure.

What was so before stands in the objects as they were observed, so nothing is told twice, whoever leads. What is under
way by itself, such as a pool that is not ready because it has just been changed, is not told: its end is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gismo_kube.occurrence import Occurrence
from gismo_operator.api.v1alpha1 import (
    Condition,
    ConditionStatus,
    GismoNamespace,
    GismoNode,
    GismoPool,
    NodeSpec,
    RangeSpec,
    RangeState,
    Standing,
)
from gismo_operator.conditions import DEGRADED, NOT_LOADED, PROGRESSING, READY, Said, listed

_ACTION = "Reconcile"
# Why something is not ready, where that passes by itself.
_PASSING = frozenset({"NodesNotReady", "NamespacesNotReady", *(state.value for state in RangeState)})

# What somebody may have to end by hand.
_TOLD_OF_PROGRESS = frozenset({"WaitingForUse", "Quarantined"})


def of_pool(pool: GismoPool, said: Iterable[Said]) -> Iterator[Occurrence]:
    """A pool's conditions are now what was said."""
    before, now = _by_type(pool.status.conditions), {one.type: one for one in said}
    ready, degraded, progressing = now[READY], now[DEGRADED], now[PROGRESSING]
    if degraded.is_true and not _was(before, degraded):
        yield _told(pool, degraded.reason, degraded.message, is_warning=True)
    elif not degraded.is_true and _was_true(before, DEGRADED):
        was = before[DEGRADED]
        yield _told(pool, "Recovered", f"{was.reason} is over: {was.message}")
    if ready.is_true and not _was_true(before, READY):
        yield _told(pool, READY, f"every Gismo namespace is ready {ready.message}")
    elif not (ready.is_true or progressing.is_true or degraded.is_true):
        # While something is under way nothing is wrong yet; and what is degraded was told.
        was_passing = _was_true(before, PROGRESSING) or _was_true(before, DEGRADED)
        if was_passing or not _was(before, ready):
            yield _told(pool, ready.reason, ready.message, is_warning=True)
    if progressing.is_true and progressing.reason in _TOLD_OF_PROGRESS and not _was(before, progressing):
        yield _told(pool, progressing.reason, progressing.message)


def of_namespace(one: GismoNamespace, spec: RangeSpec, said: Iterable[Said]) -> Iterator[Occurrence]:
    """A Gismo namespace's conditions are now what was said. spec: as it is to be."""
    before, now = _by_type(one.status.conditions), {each.type: each for each in said}
    ready, not_loaded = now[READY], now[NOT_LOADED]
    if not_loaded.is_true and not _was(before, not_loaded):
        yield _told(one, not_loaded.reason, not_loaded.message, is_warning=True)
    if _was(before, ready):
        return
    if ready.is_true:
        resource = f"gismo.io/{spec.pool}.{spec.namespace}"
        whose = spec.access.kubernetes_namespaces
        use = (
            f"pods of the Kubernetes namespaces {listed(whose)} get a share with `{resource}: 1` in their limits"
            if whose
            else "add a Kubernetes namespace to its access.kubernetesNamespaces in the GismoPool: nobody's pods may use it"
        )
        yield _told(one, READY, f"{ready.message}; {use}")
    elif spec.state is not RangeState.ACTIVE:
        yield _told(one, ready.reason, ready.message)
    elif ready.reason not in _PASSING:
        yield _told(one, ready.reason, ready.message, is_warning=True)


def of_node(node: GismoNode, spec: NodeSpec) -> Iterator[Occurrence]:
    """What is thought of a node is now what spec says."""
    if spec.standing is node.spec.standing:
        return
    if spec.standing is Standing.ACTIVE:
        yield _told(node, Standing.ACTIVE.value, f"{spec.node} is back: it gets shares again")
    elif spec.standing is Standing.SUSPECT:
        yield _told(
            node, Standing.SUSPECT.value, f"the Node {spec.node} is not Ready, or is gone: no new shares there, and nothing of "
            f"it is reused; if it is off for certain, annotate the pool with gismo.io/confirmed-dead: \"{spec.host_id}\", or taint "
            "the Node with node.kubernetes.io/out-of-service", is_warning=True,
        )  # fmt: skip
    elif spec.standing is Standing.FENCED:
        yield _told(
            node, Standing.FENCED.value, f"{spec.node} is silent in the stores, too, and fenced there: each call of its processes is "
            "refused, also when it comes back, until its pods are made anew; nothing of it is reused", is_warning=True,
        )  # fmt: skip
    elif spec.standing is Standing.DEAD:
        yield _told(
            node, Standing.DEAD.value, f"{spec.node} is dead: it has booted anew, or somebody said so; what it held is void",
            is_warning=True,
        )  # fmt: skip
    else:
        yield _told(
            node, Standing.RELEASED.value, f"what {spec.node} held in the stores is used again; its objects stay"
        )


def _by_type(conditions: Sequence[Condition]) -> Mapping[str, Condition]:
    return {one.type: one for one in conditions}


def _was_true(before: Mapping[str, Condition], kind: str) -> bool:
    return kind in before and before[kind].status is ConditionStatus.TRUE


def _was(before: Mapping[str, Condition], said: Said) -> bool:
    """Was the same said before, in whatever words?"""
    was = before.get(said.type)
    return was is not None and (_was_true(before, said.type), was.reason) == (bool(said.is_true), said.reason)


def _told(
    of: GismoPool | GismoNamespace | GismoNode, reason: str, note: str, *, is_warning: bool = False
) -> Occurrence:
    return Occurrence(type(of).__name__, of.metadata.name, of.metadata.uid, is_warning, reason, _ACTION, note)
