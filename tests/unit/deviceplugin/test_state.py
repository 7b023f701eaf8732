"""State directories as the agent prepares them, opened as a container does."""

from __future__ import annotations

import os
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

import gismo_core
from as_user import as_user
from gismo_core import node_marker
from gismo_deviceplugin.kubelet import shares
from gismo_deviceplugin.pool.state import StateDirectories

STORE = "0a1b2c3d-0000-4000-8000-000000000001"


def test_prepared_once_and_the_same_again(tmp_path: Path) -> None:
    directories = StateDirectories(tmp_path / "stores")
    assert directories.stores() == frozenset()
    folder = directories.prepare(STORE, 3)
    (folder / "of-a-process").write_text("kept")
    assert directories.prepare(STORE, 3) == folder
    assert (folder / "of-a-process").read_text() == "kept"
    assert folder.stat().st_mode & 0o7777 == 0o1777
    marker = node_marker.read(folder / shares.MARKER)
    assert (marker.host_id, marker.store_uuid) == (3, uuid.UUID(STORE))
    assert directories.stores() == {STORE}
    with pytest.raises(ValueError, match="is of host id 3 in this boot"):
        directories.prepare(STORE, 4)
    directories.remove(STORE)
    directories.remove(STORE)
    assert directories.stores() == frozenset()


def test_what_an_earlier_boot_left_is_void(tmp_path: Path) -> None:
    directories = StateDirectories(tmp_path)
    folder = directories.prepare(STORE, 3)
    (folder / "of-a-process").write_text("void")
    marker = node_marker.read(folder / shares.MARKER)
    (folder / shares.MARKER).write_text(replace(marker, boot_id=str(uuid.UUID(int=9))).text())
    directories.prepare(STORE, 4)
    assert {one.name for one in folder.iterdir()} == {shares.MARKER, uuid.UUID(STORE).hex}
    assert node_marker.read(folder / shares.MARKER).host_id == 4


def test_an_empty_directory_of_the_container_runtime_is_prepared_not_believed(tmp_path: Path) -> None:
    directories = StateDirectories(tmp_path)
    directories.path(STORE).mkdir(mode=0o755)
    assert directories.marker(STORE) is None
    directories.prepare(STORE, 0)
    assert directories.path(STORE).stat().st_mode & 0o7777 == 0o1777


@pytest.mark.root
def test_containers_of_different_users_meet_in_it() -> None:
    """Uid 1000, and what OpenShift makes up: whoever comes first must not keep the other out."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        root = Path(name)
        root.chmod(0o755)
        gismo_core.format(root / "memory", size=32 << 20, store_uuid=uuid.UUID(STORE), mode=0o666)
        folder = StateDirectories(root / "stores").prepare(STORE, 7)

        def look() -> tuple[int, int]:
            with gismo_core.open(root / "memory", state_dir=folder, host_id=7) as store:
                store.put(b"of one user")
                return os.getuid(), len(list(store.objects()))

        assert [as_user(uid, look) for uid in (1000, 1_234_567, 1000)] == [(1000, 1), (1_234_567, 2), (1000, 3)]


def test_a_container_opens_the_store_as_its_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the environment of the answer to Allocate, its paths put where they are mounted from."""
    memory = tmp_path / "memory"
    gismo_core.format(memory, size=32 << 20, store_uuid=uuid.UUID(STORE))
    folder = StateDirectories(tmp_path / "stores").prepare(STORE, 7)
    tenant = shares.Tenant("rack1", "team-a", STORE, 1, str(memory), False, str(folder), "/runtime")
    answer = shares.answer(tenant, shares.ids(tenant)[0])
    for name, value in answer.envs.items():
        for mount in answer.mounts:
            value = value.replace(mount.container_path, mount.host_path)
        monkeypatch.setenv(name, value)
    with gismo_core.open() as store:
        assert store.host_id == 7
    assert Path(os.environ["GISMO_NODE_MARKER"]) == folder / shares.MARKER
    assert (tmp_path / "stores" / STORE / uuid.UUID(STORE).hex / "state").exists()
