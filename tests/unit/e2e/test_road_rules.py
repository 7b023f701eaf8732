"""What counts as an object that was read where it lies: each other case has to be told."""

from __future__ import annotations

from typing import Any

import pytest

from e2e import road

_WELL: dict[str, Any] = {
    "nodes": ["one", "other"],
    "place": ["/dev/gismo/8a", 4096],
    "made": ["/dev/gismo/8a", 4096],
    "writable": False,
    "received": 5000,
    "idle": 1000,
}


def test_nothing_is_wrong_with_what_is_right() -> None:
    assert road.wrong(_WELL) == ""


@pytest.mark.parametrize(
    "other",
    [
        {"nodes": ["one", "one"]},
        {"place": ["/dev/gismo/8a", 8192]},
        {"place": ["/dev/gismo/9b", 4096]},
        {"place": ["/dev/shm/plasma", 0], "made": ["/dev/shm/plasma", 0]},
        {"writable": True},
        {"received": road.NETWORK_BYTES + 1000},
    ],
)
def test_what_is_wrong_is_told(other: dict[str, Any]) -> None:
    assert road.wrong({**_WELL, **other})
