"""How soon what the pool label refused is made anew."""

from __future__ import annotations

import uuid

import kube_objects as make
from gismo_operator.api.v1alpha1 import GismoNamespace
from gismo_operator.reconcile import tenants
from gismo_operator.refusals import Refusals
from set_clock import Clock


def made(number: int, name: str = "one") -> GismoNamespace:
    spec = tenants.decide(make.observed(make.pool(make.tenant(name)), nodes=[]), 1).specs[name]
    (one,) = make.stored([spec.model_copy(update={"store_uuid": str(uuid.UUID(int=number))})])
    return one


def test_at_once_and_later_each_time_up_to_a_minute() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    waits = []
    for number in range(10):
        left = refusals.left_s(made(number))
        assert refusals.left_s(made(number)) == left, "looked at twice, made once"
        waits.append(left)
        clock.now += left
        assert refusals.left_s(made(number)) == 0.0
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert refusals.left_s(made(100, "two")) == 0.0


def test_what_lasted_was_taken() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    for number in range(5):
        refusals.left_s(made(number))
    assert refusals.left_s(made(4)) == 8.0
    clock.now += 601.0
    assert refusals.left_s(made(5)) == 0.0
