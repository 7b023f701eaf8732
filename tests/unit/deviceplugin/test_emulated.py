"""Emulated memory: a directory on tmpfs with the label and a file for each store."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import gismo_core
from gismo_deviceplugin.pool import emulated
from gismo_deviceplugin.pool.emulated import EmulatedPool
from gismo_deviceplugin.pool.label import END_BYTES, Label, LabelRange, Layout
from gismo_deviceplugin.pool.medium import NotThere, Unfit

MIB = 1 << 20
STORE = "0a1b2c3d-0000-4000-8000-000000000001"
RANGE = LabelRange("team-a", END_BYTES, 32 * MIB, STORE)
CAPACITY = 128 * MIB


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gismo-pool-", dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def pool(directory: Path) -> EmulatedPool:
    made = EmulatedPool(directory, CAPACITY)
    made.check()
    return made


def test_a_label_is_the_same_for_every_node(pool: EmulatedPool, directory: Path) -> None:
    here, there = pool.open_label(), EmulatedPool(directory, CAPACITY).open_label()
    wanted = Layout(3, "rack1", (RANGE,))
    Label(here).format(STORE)
    Label(here).write_layout(wanted)
    assert Label(there).layout() == wanted
    identity = Label(there).identity()
    assert identity is not None
    assert identity.size_bytes == CAPACITY + 2 * END_BYTES
    with pytest.raises(ValueError, match="not in the pool label"):
        here.read(END_BYTES, 1)
    with pytest.raises(ValueError, match="not in the pool label"):
        here.read(END_BYTES - 1, 2 + 2 * END_BYTES)
    here.close()
    there.close()


def test_a_store_is_formatted_once_seen_by_all_and_goes(pool: EmulatedPool, directory: Path) -> None:
    other = EmulatedPool(directory, CAPACITY)
    with pytest.raises(NotThere, match="not formatted yet"):
        other.verify(RANGE, "hardware")
    seen: list[tuple[int, int]] = []
    pool.format(RANGE, "hardware", progress=lambda done, total: seen.append((done, total)))
    other.verify(RANGE, "hardware")
    assert seen
    assert seen[-1][0] == seen[-1][1]
    path = pool.path(STORE)
    with gismo_core.open(path) as store:
        handle = store.put(b"kept", name="kept")
        pool.format(RANGE, "hardware")  # again, by a writer that does not know how far it came
        assert bytes(store.get(handle).data) == b"kept"
    assert path.stat().st_mode & 0o777 == 0o666
    assert directory.stat().st_mode & 0o777 == 0o700
    assert pool.stores() == {STORE}
    pool.zero(RANGE)
    pool.zero(RANGE)
    assert pool.stores() == frozenset()


def test_a_writer_that_died_leaves_nothing_that_is_taken_for_a_store(pool: EmulatedPool) -> None:
    path = pool.path(STORE)
    path.with_name(path.name + ".new").write_bytes(b"half")
    with pytest.raises(NotThere):
        pool.verify(RANGE, "hardware")
    assert pool.stores() == frozenset()
    pool.format(RANGE, "hardware")
    pool.verify(RANGE, "hardware")
    assert [one.name for one in path.parent.iterdir()] == [STORE]


def test_a_store_that_a_reboot_took_is_made_anew(pool: EmulatedPool) -> None:
    pool.format(RANGE, "hardware")
    with pool.path(STORE).open("r+b") as file:
        file.write(bytes(8192))
        file.seek(-4096, os.SEEK_END)
        file.write(bytes(4096))
    with pytest.raises(NotThere, match="there is no store"):
        pool.verify(RANGE, "hardware")
    pool.format(RANGE, "hardware")
    pool.verify(RANGE, "hardware")


def test_what_is_something_else_is_said_and_left_alone(pool: EmulatedPool, directory: Path) -> None:
    pool.format(RANGE, "hardware")
    with pytest.raises(Unfit, match="has 33554432 bytes, and the range of team-a 67108864"):
        pool.verify(replace(RANGE, size_bytes=64 * MIB), "hardware")
    with pytest.raises(Unfit, match="for hardware coherence, not software"):
        pool.verify(RANGE, "software")
    other = str(uuid.UUID(int=7))
    pool.path(STORE).rename(pool.path(other))
    with pytest.raises(Unfit, match="was a file copied over it"):
        pool.verify(replace(RANGE, store_uuid=other), "hardware")
    with pytest.raises(Unfit, match="was a file copied over it"):
        pool.format(replace(RANGE, store_uuid=other), "hardware")
    (directory / "label").write_bytes(b"notes of somebody")
    with pytest.raises(Unfit, match="another program's file"):
        pool.open_label()
    assert (directory / "label").read_bytes() == b"notes of somebody"


def test_what_cannot_be_a_pool_says_what_to_do(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unfit, match="not a directory on this node: mount one tmpfs there"):
        EmulatedPool(tmp_path / "none", CAPACITY).check()
    (directory / "link").symlink_to(directory)
    with pytest.raises(Unfit, match="not a directory"):
        EmulatedPool(directory / "link", CAPACITY).check()
    with pytest.raises(Unfit, match="not an absolute path"):
        EmulatedPool(Path("relative"), CAPACITY).check()
    mounts = tmp_path / "mountinfo"
    device = os.stat(directory).st_dev
    mounts.write_text(f"1 0 {os.major(device)}:{os.minor(device)} / / rw shared:1 - ext4 /dev/sda1 rw\n")
    with monkeypatch.context() as patch:
        patch.setattr(emulated, "_MOUNTS", mounts)
        with pytest.raises(Unfit, match="is on ext4, not on tmpfs or hugetlbfs"):
            EmulatedPool(directory, CAPACITY).check()
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal: 1 kB\nMemAvailable:       40960 kB\n")
    monkeypatch.setattr(emulated, "_MEMINFO", memory)
    with pytest.raises(Unfit, match="of which 40 MiB are available"):
        EmulatedPool(directory, CAPACITY).format(RANGE, "hardware")
    assert not EmulatedPool(directory, CAPACITY).stores()


def test_a_directory_of_others_is_left_as_it_is(directory: Path) -> None:
    """As /dev/shm: taken for a pool it would be shut to everybody else."""
    (directory / "theirs").touch()
    directory.chmod(0o1777)
    with pytest.raises(Unfit, match=r"no pool and not empty \(theirs\): give the pool a directory of its own"):
        EmulatedPool(directory, CAPACITY).check()
    assert directory.stat().st_mode & 0o7777 == 0o1777
    (directory / "theirs").unlink()
    pool = EmulatedPool(directory, CAPACITY)
    pool.check()
    pool.open_label().close()
    (directory / "theirs").touch()
    pool.check()  # what comes later is no reason to stop a pool
    assert directory.stat().st_mode & 0o7777 == 0o700


def test_processes_that_map_a_store_are_named(pool: EmulatedPool, tmp_path: Path) -> None:
    assert pool.users(STORE) == ()
    pool.format(RANGE, "hardware")
    assert pool.users(STORE) == ()
    with gismo_core.open(pool.path(STORE), state_dir=tmp_path):
        (user,) = pool.users(STORE)
        assert user.startswith(f"process {os.getpid()} (")
    assert pool.users(STORE) == ()
