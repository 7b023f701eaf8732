"""The operator as a process: kopf's informer in front, one worker that looks at pools while this replica leads."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import kopf

from gismo_kube import informer
from gismo_kube.connection import REFUSED, REQUEST_ERRORS, CannotStart, api_client, in_words, starting
from gismo_operator.due import Due
from gismo_operator.informer import Informer
from gismo_operator.kube import Kube, NotLeader
from gismo_operator.lease import REQUEST_S, Leadership
from gismo_operator.reconciler import Reconciler

logger = logging.getLogger("gismo.operator")

_END_S = 2 * REQUEST_S  # a look that is under way ends within it


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    namespace: str  # Kubernetes namespace of the Lease
    kubeconfig: str | None = None  # None: the pod's service account, or $KUBECONFIG, or ~/.kube/config
    liveness: str | None = None  # URL that kopf answers, such as http://0.0.0.0:8080/healthz


class Operator:
    """One replica, from run() to its end."""

    def __init__(self, options: Options) -> None:
        self._options = options
        with starting():
            self._api = api = api_client(options.kubeconfig)
            kube = Kube(api, cluster=lambda: self._informer.nodes(), may_write=lambda: self._leadership.leads())
        self._due = Due()
        self._informer = Informer(self._due)
        self._leadership = Leadership(api, namespace=options.namespace)
        self._reconciler = Reconciler(kube)
        self._stop: Callable[[], object] = lambda: None
        self._lost = False

    def run(self) -> int:
        """Until SIGTERM or SIGINT: 0; 1 where the Lease was lost, to be started again as one that waits. CannotStart."""
        worker = threading.Thread(target=self._work, name="worker")
        worker.start()
        registry = informer.registry(self._api)
        self._informer.register(registry)

        @kopf.on.startup(registry=registry)
        def stand(**_: Any) -> None:
            self._leadership.start(self._informer.all_due, self._give_up)

        try:
            asyncio.run(self._informed(registry))
        except kopf.LoginError as error:
            raise CannotStart(REFUSED) from error
        finally:
            self._due.close()
            worker.join(_END_S)
            self._leadership.give_back()
        return 1 if self._lost else 0

    async def _informed(self, registry: kopf.OperatorRegistry) -> None:
        """kopf, until a signal or a lost Lease."""
        # Not a threading.Event: kopf waits for one in a thread, and after a signal nobody would ever set it.
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        await kopf.operator(
            registry=registry,
            identity=cast(
                Any, self._leadership.identity
            ),  # kopf's own has the user's name, which a bare number has not
            clusterwide=True,
            standalone=True,
            stop_flag=stop,
            liveness_endpoint=self._options.liveness,
        )

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
            try:
                again = self._reconciler.look(pool)
            except NotLeader:
                continue
            except REQUEST_ERRORS as error:
                logger.warning("pool %s: again in %.1f s: %s", pool, self._due.failed(pool), in_words(error))
            except Exception:
                wait = self._due.failed(pool)
                logger.exception("pool %s: a bug, or an object that was never to be; again in %.1f s", pool, wait)
            else:
                self._due.succeeded(pool)
                if again is not None:
                    self._due.add(pool, again)
