"""Opening a store in a pod: as the host that the node's agent says, or not at all."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

import gismo_core
from gismo_core import node_marker
from gismo_core.node_marker import NodeMarker

MIB = 1 << 20


@pytest.fixture
def marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, NodeMarker]:
    """The path of the marker, and what it has to say."""
    store = tmp_path / "store"
    info = gismo_core.format(store, size=32 * MIB)
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setenv("GISMO_STORE", f"file:{store}")
    monkeypatch.setenv("GISMO_STATE_DIR", str(state))
    monkeypatch.setenv("GISMO_NODE_MARKER", str(state / "node.json"))
    return state / "node.json", NodeMarker(5, node_marker.boot_id(), info.store_uuid)


def test_the_host_id_is_the_markers(marked: tuple[Path, NodeMarker]) -> None:
    path, marker = marked
    path.write_text(marker.text())
    with gismo_core.open() as first, gismo_core.open() as second:
        assert first.host_id == second.host_id == 5


def test_without_a_marker_of_this_boot_and_this_store_nothing_is_joined(marked: tuple[Path, NodeMarker]) -> None:
    path, marker = marked
    with pytest.raises(gismo_core.NodeNotReady, match="has not prepared"):
        gismo_core.open()
    path.write_text(replace(marker, boot_id=str(uuid.UUID(int=1))).text())
    with pytest.raises(gismo_core.NodeNotReady, match="of an earlier boot"):
        gismo_core.open()
    path.write_text(replace(marker, store_uuid=uuid.UUID(int=1)).text())
    with pytest.raises(gismo_core.NodeNotReady, match="delete the pod"):
        gismo_core.open()
    for text in ("", "[]", '{"format": 1}', "not json", '{"format": 1, "hostId": "x", "bootId": "", "storeUUID": ""}'):
        path.write_text(text)
        with pytest.raises(gismo_core.NodeNotReady, match="cannot be understood"):
            gismo_core.open()
    path.write_text(marker.text().replace('"format": 1', '"format": 2'))
    with pytest.raises(gismo_core.NodeNotReady, match=r"format 2, and this version of gismo_core knows 1"):
        gismo_core.open()
    with gismo_core.open(read_only=True) as store:
        assert not list(store.hosts()), "looking joins nothing, and needs no marker"
    assert [one.name for one in path.parent.iterdir()] == ["node.json"]


def test_other_stores_of_the_pod_are_not_the_agents(marked: tuple[Path, NodeMarker], tmp_path: Path) -> None:
    own = tmp_path / "own"
    gismo_core.format(own, size=32 * MIB)
    with gismo_core.open(own) as store:
        assert store.host_id == 0
    with gismo_core.open(state_dir=tmp_path / "elsewhere") as store:  # who says it all is believed
        assert store.host_id == 0
