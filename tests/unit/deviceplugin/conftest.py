"""What all tests of the device plugin share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores with the UUIDs of tests: what another run of them left, or another version, is not theirs."""
    monkeypatch.setenv("GISMO_STATE_DIR", str(tmp_path / "gismo-state"))
