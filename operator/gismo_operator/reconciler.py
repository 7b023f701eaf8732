"""One look at one pool: read, decide, write. Safe to repeat at any time, and to be cut off anywhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from gismo_operator.api.v1alpha1 import GismoNamespace, RangeState
from gismo_operator.kube import Kube, Stale
from gismo_operator.reconcile import plan
from gismo_operator.reconcile.observed import Observed
from gismo_operator.reconcile.plan import Plan
from gismo_operator.reconcile.tenants import refused
from gismo_operator.refusals import Refusals

logger = logging.getLogger("gismo.operator")

# Between an answer to Allocate and its being seen in PodResources is a gap: a share may be given that nobody sees yet.
HIDDEN_S = 10.0

# Of one look. stale: what it was decided on has changed meanwhile; error: a request failed.
Result = Literal["unchanged", "written", "stale", "error"]


class Reconciler:
    """Remembers only since when it has seen ranges being released, and how often some were refused; a new one begins to wait
    anew, which is safe."""

    def __init__(
        self,
        kube: Kube,
        clock: Callable[[], float] = time.monotonic,
        carried_out: Callable[[Observed, Plan], object] = lambda *_: None,
    ) -> None:
        self._kube = kube
        self._clock = clock
        self._carried_out = carried_out
        self._releasing_since: dict[str, float] = {}  # by store UUID
        self._refusals = Refusals(clock)

    def look(self, pool: str) -> float | None:
        """Bring one pool a step further; in how many seconds to look again at the latest, or None: when something changes."""
        return self.step(pool)[0]

    def step(self, pool: str) -> tuple[float | None, Result]:
        """look(), and what it was."""
        observed = self._timed(self._kube.observe(pool))
        decided = plan.decide(observed)
        try:
            wrote = self._kube.carry_out(observed, decided)
        except Stale as error:
            logger.info("pool %s: looking again: %s", pool, error)
            return 0.0, "stale"
        self._carried_out(observed, decided)
        if wrote:
            return 0.0, "written"
        waiting = [
            HIDDEN_S - (self._clock() - self._releasing_since[one.spec.store_uuid])
            for one in observed.namespaces
            if one.spec.state is RangeState.RELEASING and one.spec.namespace not in observed.shares_seen
        ]
        stays = refused(observed) - decided.released
        waiting += [self._refusals.left_s(one) for one in observed.namespaces if one.spec.namespace in stays]
        return max(0.1, min(waiting)) if waiting else None, "unchanged"

    def _timed(self, observed: Observed) -> Observed:
        """With what has been so for long enough."""
        return replace(
            observed,
            shares_seen=frozenset(one.spec.namespace for one in observed.namespaces if self._are_shares_seen(one)),
            may_be_anew=frozenset(one.spec.namespace for one in observed.namespaces if not self._refusals.left_s(one)),
        )

    def _are_shares_seen(self, one: GismoNamespace) -> bool:
        if one.spec.state is RangeState.QUARANTINED:
            return True  # it is only after it has been Releasing for so long
        if one.spec.state is not RangeState.RELEASING:
            self._releasing_since.pop(one.spec.store_uuid, None)
            return False
        since = self._releasing_since.setdefault(one.spec.store_uuid, self._clock())
        return self._clock() - since >= HIDDEN_S
