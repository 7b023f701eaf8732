"""The operator as a process: kopf's informer in front, one worker that looks at pools while this replica leads."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import kopf

from gismo_kube import events, informer
from gismo_kube.connection import REQUEST_ERRORS, api_client, in_words, starting
from gismo_kube.endpoint import Endpoint
from gismo_kube.following import Following
from gismo_operator.due import Due
from gismo_operator.informer import FOLLOWED, Informer
from gismo_operator.kube import Kube, NotLeader
from gismo_operator.lease import REQUEST_S, Leadership
from gismo_operator.metrics import Metrics
from gismo_operator.reconciler import Reconciler, Result

logger = logging.getLogger("gismo.operator")

_END_S = 2 * REQUEST_S  # a look that is under way ends within it
_EVENTS_END_S = 2.0
# Each request of a look ends within REQUEST_S, and the largest look has some hundreds: one that takes longer hangs.
_LOOK_S = 600.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    namespace: str  # Kubernetes namespace of the Lease
    kubeconfig: str | None = None  # None: the pod's service account, or $KUBECONFIG, or ~/.kube/config
    listen: tuple[str | None, int] | None = None  # for metrics and probes; host None: all addresses


class Operator:
    """One replica, from run() to its end."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._due = Due()
        with starting():
            self._api = api = api_client(options.kubeconfig)
            self._leadership = Leadership(api, namespace=options.namespace)
            self._metrics = Metrics(self._leadership.leads, self._due.now)
            self._events = events.recorder(api, "operator", self._leadership.identity, self._metrics.told)
            kube = Kube(
                api,
                cluster=lambda: self._informer.nodes(),
                may_write=self._leadership.leads,
                tell=self._events.tell,
            )
        self._informer = Informer(self._due)
        self._following = Following(*FOLLOWED)
        self._reconciler = Reconciler(kube, carried_out=self._metrics.carried_out)
        self._worker = threading.Thread(target=self._work, name="worker")
        self._looking: tuple[str, float] | None = None  # at which pool, since when
        self._stop: Callable[[], object] = lambda: None
        self._lost = False

    def run(self) -> int:
        """Until SIGTERM or SIGINT: 0; 1 where the Lease was lost, to be started again as one that waits. CannotStart."""
        self._worker.start()
        registry = informer.registry(self._api, self._following)
        self._informer.register(registry)

        @kopf.on.startup(registry=registry)
        def stand(**_: Any) -> None:
            self._leadership.start(self._informer.all_due, self._give_up)

        try:
            asyncio.run(self._informed(registry))
        finally:
            self._due.close()
            self._worker.join(_END_S)
            self._leadership.give_back()
            self._events.close(_EVENTS_END_S)
        return 1 if self._lost else 0

    async def _informed(self, registry: kopf.OperatorRegistry) -> None:
        """kopf, until a signal or a lost Lease."""
        running = informer.Running(registry, self._leadership.identity)
        self._stop = running.stop
        served = Endpoint(self._metrics.registry, self._live, self._ready)
        if self._options.listen is not None:
            await served.start(self._options.listen)
        try:
            await running.run()
        finally:
            await served.stop()

    async def _live(self) -> Iterable[str]:
        """What only a new start would mend."""
        return live_problems(
            worker_runs=self._worker.is_alive(),
            looking=self._looking,
            stands=self._leadership.stands,
            unwatched=self._following.problems(),
            now=time.monotonic(),
        )

    async def _ready(self) -> Iterable[str]:
        """Could it lead? One that waits for the Lease is ready too: it takes over at once."""
        unlisted = self._following.unlisted()
        return [f"not listed yet: {', '.join(sorted(unlisted))}"] if unlisted else []

    def _give_up(self) -> None:
        if self._leadership.given_back:
            return
        logger.error("the Lease was lost: another operator may lead; this one ends, and is to be started again")
        self._lost = True
        self._stop()

    def _work(self) -> None:
        while (pool := self._due.take()) is not None:
            if not self._leadership.leads():
                continue  # who becomes leader looks at all pools
            self._looking = (pool, time.monotonic())
            with self._metrics.look():
                self._metrics.looked(self._look(pool))
            self._looking = None

    def _look(self, pool: str) -> Result:
        try:
            again, result = self._reconciler.step(pool)
        except NotLeader:
            return "stale"
        except REQUEST_ERRORS as error:
            logger.warning("pool %s: again in %.1f s: %s", pool, self._due.failed(pool), in_words(error))
            return "error"
        except Exception:
            wait = self._due.failed(pool)
            logger.exception("pool %s: a bug, or an object that was never to be; again in %.1f s", pool, wait)
            return "error"
        self._due.succeeded(pool)
        if again is not None:
            self._due.add(pool, again)
        return result


def live_problems(
    *, worker_runs: bool, looking: tuple[str, float] | None, stands: bool, unwatched: Iterable[str], now: float
) -> Iterable[str]:
    """Of a replica, in words; nothing of an API server that is down, since a new start does not bring it back."""
    if not worker_runs:
        yield "the worker has ended: no pool is looked at"
    elif looking is not None and now - looking[1] > _LOOK_S:
        yield f"the look at pool {looking[0]} hangs, since {now - looking[1]:.0f} s"
    if not stands:
        yield "the election has ended: this replica will never lead"
    yield from unwatched
