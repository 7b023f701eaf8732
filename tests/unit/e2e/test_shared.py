"""A new cluster finds nothing of one before it in the memory that its workers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e import cluster


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    """What kind was told; the shared memory and the kubeconfig are in a folder of the test."""
    told: list[tuple[str, ...]] = []
    monkeypatch.setattr(cluster, "_SHARED", tmp_path / "shared")
    monkeypatch.setattr(cluster, "kubeconfig", lambda: tmp_path / "cluster" / "kubeconfig")
    monkeypatch.setattr(cluster, "_kind", lambda *arguments, stdin=None: told.append(arguments))
    return told


def test_it_is_there_and_empty(made: list[tuple[str, ...]], tmp_path: Path) -> None:
    cluster.create("image")
    assert made[0][:2] == ("create", "cluster")
    assert list((tmp_path / "shared").iterdir()) == []


def test_what_a_cluster_left_that_was_not_taken_away_is_gone(made: list[tuple[str, ...]], tmp_path: Path) -> None:
    (tmp_path / "shared" / "rack2").mkdir(parents=True)
    (tmp_path / "shared" / "label").write_text("of a pool that no API knows")
    cluster.create("image")
    assert made
    assert list((tmp_path / "shared").iterdir()) == []
