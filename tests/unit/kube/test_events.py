"""Events: what is told, what is counted, what is too much; and that no work waits for them."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from kubernetes import client
from kubernetes.dynamic.exceptions import NotFoundError

from gismo_kube.events import Recorder, Writer
from gismo_kube.occurrence import Occurrence

ONE = Occurrence("GismoPool", "rack1", "uid-1", True, "DoesNotFit", "Reconcile", "team-a: there is no gap of 64Mi")


class Server:
    """The events of an API server."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.writes = 0
        self.fails: Exception | None = None

    def create(self, body: dict[str, Any], namespace: str, **_: Any) -> None:
        self._write(namespace)
        assert body["metadata"]["name"] not in self.stored
        self.stored[body["metadata"]["name"]] = dict(body)

    def patch(self, name: str, namespace: str, body: dict[str, Any], **_: Any) -> None:
        self._write(namespace)
        if name not in self.stored:
            raise NotFoundError(client.ApiException(status=404))
        self.stored[name].update(body)

    def _write(self, namespace: str) -> None:
        assert namespace == "default", "where events about cluster-scoped objects are"
        self.writes += 1
        if self.fails is not None:
            raise self.fails


class World:
    def __init__(self) -> None:
        self.server = Server()
        self.now = 1000.0
        when = datetime(2026, 1, 1, tzinfo=timezone.utc)
        self.writer = Writer(
            self.server, controller="gismo.io/operator", instance="host_1", clock=lambda: self.now, now=lambda: when
        )

    def counts(self) -> list[int]:
        return [one.get("series", {}).get("count", 1) for one in self.server.stored.values()]


def test_the_first_one_is_an_event_as_kubernetes_wants_it() -> None:
    world = World()
    assert world.writer.write(ONE) == "told"
    (body,) = world.server.stored.values()
    assert body["metadata"]["name"].startswith("rack1.")
    assert body["regarding"] == {
        "apiVersion": "gismo.io/v1alpha1",
        "kind": "GismoPool",
        "name": "rack1",
        "uid": "uid-1",
    }
    assert (body["type"], body["reason"], body["action"], body["note"]) == (
        "Warning",
        ONE.reason,
        "Reconcile",
        ONE.note,
    )
    assert (body["reportingController"], body["reportingInstance"]) == ("gismo.io/operator", "host_1")
    assert body["eventTime"] == "2026-01-01T00:00:00.000000Z"
    assert "series" not in body


def test_what_comes_again_is_counted_and_written_once_a_minute() -> None:
    world = World()
    world.writer.write(ONE)
    for _ in range(50):  # more than the budget of an object: it is of what is written
        world.now += 1
        assert world.writer.write(ONE) == "counted"
    assert world.counts() == [2]
    assert world.server.writes == 2
    world.now += 60
    world.writer.write(ONE)
    assert world.counts() == [52]
    assert world.server.writes == 3


def test_what_comes_again_much_later_or_is_something_else_is_a_new_event() -> None:
    world = World()
    world.writer.write(ONE)
    world.now += 361
    assert world.writer.write(ONE) == "told"
    assert world.writer.write(replace(ONE, note="in other words")) == "told"
    assert world.writer.write(replace(ONE, uid="uid-2")) == "told"
    assert world.counts() == [1, 1, 1, 1]


def test_an_event_that_has_expired_is_told_anew() -> None:
    world = World()
    world.writer.write(ONE)
    world.server.stored.clear()
    assert world.writer.write(ONE) == "told"
    assert world.counts() == [1]


def test_an_object_has_a_budget_and_the_others_have_theirs() -> None:
    world = World()
    results = [world.writer.write(replace(ONE, note=f"another {number}")) for number in range(30)]
    assert results.count("told") == 25
    assert results[25:] == ["dropped"] * 5
    assert world.writer.write(replace(ONE, uid="uid-2")) == "told"
    world.now += 300
    assert world.writer.write(ONE) == "told"
    assert world.writer.write(replace(ONE, note="x")) == "dropped"


def test_long_words_are_cut_where_the_api_cuts() -> None:
    world = World()
    world.writer.write(replace(ONE, name="r" * 253, note="ü" * 1000))
    (body,) = world.server.stored.values()
    assert body["note"] == "ü" * 512
    assert len(body["metadata"]["name"]) <= 253


@pytest.mark.parametrize("error", [client.ApiException(status=403), OSError("down")])
def test_one_that_cannot_be_written_is_gone_and_the_next_is_not(error: Exception) -> None:
    world = World()
    done: list[tuple[str, str]] = []
    seen = threading.Event()

    def note(one: Occurrence, result: str) -> None:
        done.append((one.reason, result))
        seen.set()

    recorder = Recorder(world.writer, note)
    world.server.fails = error
    recorder.tell(ONE)
    assert seen.wait(10)
    world.server.fails = None
    recorder.tell(replace(ONE, reason="Recovered"))
    recorder.close(10)
    assert done == [("DoesNotFit", "failed"), ("Recovered", "told")]


def test_nobody_waits_for_an_api_server_that_hangs() -> None:
    hang = threading.Event()

    class Hanging:
        def write(self, _: Occurrence) -> str:
            hang.wait(30)
            return "told"

    done: list[str] = []
    recorder = Recorder(Hanging(), lambda _, result: done.append(result))  # type: ignore[arg-type]
    for _ in range(400):
        recorder.tell(ONE)
    assert done.count("dropped") >= 400 - 256 - 1
    recorder.close(0.05)
    hang.set()
