"""What Ray's list of objects is told: nothing of Gismo's own, nothing that Ray would leave out, and a number that fits."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gismo_core.ray import state_api

KEEPER, ACTOR = b"keeper".ljust(16, b"k"), b"another".ljust(16, b"a")


def row(name: str, *, made_by: bytes = ACTOR, **counted: Any) -> SimpleNamespace:
    none: dict[str, Any] = {
        "object_id": bytes(8) + made_by + bytes(4),
        "local_ref_count": 0,
        "submitted_task_ref_count": 0,
        "contained_in_owned": [],
        "pinned_in_memory": False,
    }
    return SimpleNamespace(name=name, **(none | counted))


def reply(*rows: SimpleNamespace, total: int) -> SimpleNamespace:
    stats = SimpleNamespace(object_refs=list(rows), objects_total=total)
    return SimpleNamespace(core_workers_stats=[stats], total=total)


def names(one: Any) -> list[str]:
    return [row.name for row in one.core_workers_stats[0].object_refs]


def test_what_only_others_refer_to_is_neither_listed_nor_counted() -> None:
    rows = [
        row("nobody's"),
        row("local", local_ref_count=1),
        row("argument", submitted_task_ref_count=1),
        row("inside", contained_in_owned=[b"x"]),
        row("pinned", pinned_in_memory=True),
        row("nobody's either"),
    ]
    told = state_api.only_users(reply(*rows, total=6), {KEEPER})
    assert names(told) == ["local", "argument", "inside", "pinned"]
    assert (told.total, told.core_workers_stats[0].objects_total) == (4, 4)


def test_what_a_keeper_made_is_neither_listed_nor_counted() -> None:
    rows = [
        row("token", made_by=KEEPER, local_ref_count=1),
        row("the user's", local_ref_count=1),
        row("token of a value that is read", made_by=KEEPER, contained_in_owned=[b"x"]),
        row("another actor's, of the same job", made_by=KEEPER[:12] + b"aaaa", local_ref_count=1),
    ]
    told = state_api.only_users(reply(*rows, total=4), {KEEPER})
    assert names(told) == ["the user's", "another actor's, of the same job"]
    assert (told.total, told.core_workers_stats[0].objects_total) == (2, 2)


def test_what_a_raylet_cut_off_stays_missing() -> None:
    told = state_api.only_users(reply(row("local", local_ref_count=1), row("nobody's"), total=12), set())
    assert (names(told), told.total) == (["local"], 11)


def test_an_error_passes() -> None:
    assert state_api.only_users(None, set()) is None
    error = RuntimeError("no answer")
    assert state_api.only_users(error, set()) is error


def test_it_installs_once_and_leaves_another_ray_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("ray.util.state.state_manager")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    state_api.install()  # no such class: nothing happens

    class StateDataSourceClient:
        async def get_object_info(self, address: str) -> Any:
            return reply(row(address), total=1)

    module.StateDataSourceClient = StateDataSourceClient
    state_api.install()
    once = StateDataSourceClient.get_object_info
    state_api.install()
    assert StateDataSourceClient.get_object_info is once
    told = asyncio.run(StateDataSourceClient().get_object_info("node"))
    assert (names(told), told.total) == ([], 0)
