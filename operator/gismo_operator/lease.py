"""One active operator by a Lease. The others watch, and take over when it has not been renewed for 15 s or was given back.

The election is that of the `kubernetes` package. Around it: requests that end, an end of leading by a clock that nobody
sets, and giving the Lease back at a clean shutdown. A leader may write for RENEW_S after the beginning of its last renewal
and no longer, and a request takes at most REQUEST_S; together that is less than the duration of the Lease. A process that
is frozen between looking at the clock and sending is stopped by the resourceVersion that its writes carry.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import urllib3
from kubernetes import client
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock import leaselock

logger = logging.getLogger("gismo.operator.lease")

DURATION_S = 15
RENEW_S = 9
RETRY_S = 2
REQUEST_S = 5.0


class _Lock(leaselock.LeaseLock):
    """The package's, with requests that end, errors of the network, and a memory of the last renewal."""

    def __init__(self, api: Any, name: str, namespace: str, identity: str) -> None:
        self.api_instance: Any = _Bounded(client.CoordinationV1Api(api))
        self.name, self.namespace, self.identity = name, namespace, identity
        self.lease_reference: Any = None
        self.renewed_at: float | None = None  # by the monotonic clock, before the request was sent
        self.closed = False  # given back: not to be taken again

    def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        if self.closed:
            return False, client.ApiException(status=0, reason="it was given back")
        try:
            answer: tuple[bool, Any] = super().get(name, namespace)  # type: ignore[no-untyped-call]
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return False, client.ApiException(status=0, reason=str(error))
        return answer

    def create(self, name: str, namespace: str, election_record: Any) -> bool:
        return self._renewing(super().create, name, namespace, election_record)

    def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        return self._renewing(super().update, name, namespace, updated_record)

    def _renewing(self, write: Callable[[str, str, Any], bool], name: str, namespace: str, record: Any) -> bool:
        if self.closed:
            return False
        began = time.monotonic()
        try:
            done = write(name, namespace, record)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            logger.warning("the Lease %s/%s cannot be written: %s", namespace, name, error)
            return False
        if done:
            self.renewed_at = began
        return done


class _Bounded:
    """Every call with a time-out: the package makes them without, and one that hangs would outlast the Lease."""

    def __init__(self, api: Any) -> None:
        self._api = api

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._api, name)
        return lambda *args, **named: call(*args, _request_timeout=REQUEST_S, **named)


class Leadership:
    """Stands for election in a thread of its own from start() on."""

    def __init__(self, api: Any, *, namespace: str, name: str = "gismo-operator", identity: str | None = None) -> None:
        self.identity = identity or f"{os.uname().nodename}_{os.urandom(4).hex()}"
        self._lock = _Lock(api, name, namespace, self.identity)
        self._won = threading.Event()
        self._lost = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, on_won: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """on_won: once, when this is the leader. on_lost: once, when it is not any more; the process has to end then."""

        def won() -> None:
            self._won.set()
            logger.info("%s leads", self.identity)
            on_won()

        def lost() -> None:
            self._lost.set()
            on_lost()

        config = electionconfig.Config(
            self._lock, DURATION_S, RENEW_S, RETRY_S, onstarted_leading=won, onstopped_leading=lost
        )
        logging.getLogger("leaderelection").setLevel(logging.WARNING)  # says at every renewal that it renewed
        election = leaderelection.LeaderElection(config)
        self._thread = threading.Thread(target=election.run, name="lease", daemon=True)
        self._thread.start()

    @property
    def stands(self) -> bool:
        """Does it still stand for election, or lead, if it has begun to?"""
        return self._thread is None or self._thread.is_alive()

    @property
    def given_back(self) -> bool:
        """Not lost, but ended by give_back()."""
        return self._lock.closed

    def leads(self) -> bool:
        """May this process write now?"""
        at = self._lock.renewed_at
        return self._won.is_set() and not self._lost.is_set() and at is not None and time.monotonic() < at + RENEW_S

    def give_back(self) -> None:
        """At a clean end, after the last write: the next one need not wait until the Lease runs out."""
        leading = self.leads()
        self._lost.set()
        self._lock.closed = True
        if not leading:
            return
        api = self._lock.api_instance
        try:
            lease = api.read_namespaced_lease(self._lock.name, self._lock.namespace)
            if lease.spec.holder_identity == self.identity:
                lease.spec.holder_identity = None
                api.replace_namespaced_lease(self._lock.name, self._lock.namespace, lease)
        except (client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            logger.info("the Lease is not given back, and runs out: %s", error)
