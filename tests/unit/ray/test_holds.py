"""What keeps a token for as long as a buffer lives."""

from __future__ import annotations

import sys

import pytest

from gismo_core.ray import session


@pytest.mark.parametrize("make", [lambda: session.Hold(object()), lambda: session.ReadHold(object(), b"")])
def test_a_hold_that_outlives_its_module_goes_in_silence(
    make: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python 3.13 ends the module first where an array is a global of the user's program: its names are None by then."""
    assert callable(make)
    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    hold = make()
    for name in ("_Current", "Hold"):
        monkeypatch.setattr(session, name, None)
    del hold
    assert raised == []
