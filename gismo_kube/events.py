"""Events of Kubernetes (`events.k8s.io/v1`), as its own components write them.

An event is told where a condition changes, never because it is looked at again; and what has changed stands in the
object's status, so that neither a restart nor a new leader tells it anew. What happens again and again, such as a node
that comes and goes, becomes one event that counts (`series`), written at its second time and then once a minute at most. An
object has a budget, so that nothing floods etcd. The objects are cluster-scoped, and the events of such are in the
Kubernetes namespace `default`.

A thread of its own writes them: events are for people, and no work waits for them. One that cannot be written is
logged and gone; the condition says the same.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from kubernetes.dynamic.exceptions import NotFoundError

from gismo_kube.connection import REQUEST_ERRORS, dynamic_client, in_words
from gismo_kube.occurrence import Occurrence

logger = logging.getLogger("gismo.events")

API = "events.k8s.io/v1"
NAMESPACE = "default"
_OBJECT_API = "gismo.io/v1alpha1"
_REQUEST_S = 5.0
_WAITING = 256  # occurrences that are not written yet
_NOTE_BYTES = 1024  # the API's limit
# As in client-go: after so long without another one, the next is a new event.
_SERIES_S = 360.0
_REWRITE_S = 60.0
# As in client-go: so many at once for one object, and then one in five minutes.
_BURST, _REFILL_S = 25, 300.0

# What became of an occurrence: told, counted (in an event that there is), dropped (over the budget), failed.
Result = str


@dataclass(slots=True)
class _Series:
    name: str
    count: int
    seen_at: float
    written_at: float


class _Budget:
    """Of one object: a bucket of tokens."""

    def __init__(self, now: float) -> None:
        self._tokens = float(_BURST)
        self._at = now

    def take(self, now: float) -> bool:
        self._tokens = min(float(_BURST), self._tokens + (now - self._at) / _REFILL_S)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def full(self, now: float) -> bool:
        return self._tokens + (now - self._at) / _REFILL_S >= _BURST


class Writer:
    """Decides for one occurrence whether it is a new event, one more of a series, or too much; and writes it."""

    def __init__(
        self,
        events: Any,
        *,
        controller: str,
        instance: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._events = events  # the resource of a kubernetes.dynamic.DynamicClient
        self._controller = controller
        self._instance = instance[:128]
        self._clock = clock
        self._now = now
        self._series: dict[Occurrence, _Series] = {}
        self._budgets: dict[str, _Budget] = {}

    def write(self, one: Occurrence) -> Result:
        """To the API server; what a request raises."""
        at = self._clock()
        self._forget(at)
        there = self._series.get(one)
        if there is not None:
            there.count += 1
            there.seen_at = at
            if there.count > 2 and at - there.written_at < _REWRITE_S:
                return "counted"
        if not self._budgets.setdefault(one.uid, _Budget(at)).take(at):
            return "dropped"
        if there is not None:
            try:
                self._count(there)
            except NotFoundError:  # events live for an hour
                del self._series[one]
            else:
                there.written_at = at
                return "counted"
        name = f"{one.name[:200]}.{time.time_ns():x}"
        self._events.create(body=self._body(name, one), namespace=NAMESPACE, _request_timeout=_REQUEST_S)
        self._series[one] = _Series(name, 1, at, at)
        return "told"

    def _forget(self, at: float) -> None:
        for one in [key for key, there in self._series.items() if at - there.seen_at >= _SERIES_S]:
            del self._series[one]
        for uid in [key for key, budget in self._budgets.items() if budget.full(at)]:
            del self._budgets[uid]

    def _count(self, there: _Series) -> None:
        body = {"series": {"count": there.count, "lastObservedTime": self._stamp()}}
        self._events.patch(
            name=there.name, namespace=NAMESPACE, body=body, content_type="application/merge-patch+json",
            _request_timeout=_REQUEST_S,
        )  # fmt: skip

    def _body(self, name: str, one: Occurrence) -> Mapping[str, Any]:
        return {
            "apiVersion": API,
            "kind": "Event",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "eventTime": self._stamp(),
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "type": "Warning" if one.is_warning else "Normal",
            "reason": one.reason,
            "action": one.action,
            "note": one.note.encode()[:_NOTE_BYTES].decode(errors="ignore"),
            "regarding": {"apiVersion": _OBJECT_API, "kind": one.kind, "name": one.name, "uid": one.uid},
        }

    def _stamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Recorder:
    """Takes occurrences from any thread, and has them written by its own."""

    def __init__(self, writer: Writer, done: Callable[[Occurrence, Result], object] = lambda *_: None) -> None:
        self._writer = writer
        self._done = done
        self._waiting: queue.Queue[Occurrence | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)
        self._thread.start()

    def tell(self, one: Occurrence) -> None:
        """Returns at once."""
        try:
            self._waiting.put_nowait(one)
        except queue.Full:
            self._done(one, "dropped")

    def close(self, within_s: float) -> None:
        """What is waiting is written, as far as that goes."""
        try:
            self._waiting.put(None, timeout=within_s)
        except queue.Full:
            return
        self._thread.join(within_s)

    def _work(self) -> None:
        while (one := self._waiting.get()) is not None:
            try:
                result = self._writer.write(one)
            except REQUEST_ERRORS as error:
                logger.info("event %s of %s %s is not told: %s", one.reason, one.kind, one.name, in_words(error))
                result = "failed"
            self._done(one, result)


def recorder(api: Any, component: str, instance: str, done: Callable[[Occurrence, Result], object]) -> Recorder:
    """For the account of `api` (kubernetes.client.ApiClient). component: such as "operator"."""
    events = dynamic_client(api).resources.get(api_version=API, kind="Event")
    return Recorder(Writer(events, controller=f"gismo.io/{component}", instance=instance), done)
