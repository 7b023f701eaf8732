"""Character devices for containers: real ones, of a device that every machine has."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gismo_deviceplugin.pool.dax.nodes import Nodes
from gismo_deviceplugin.pool.dax.system import System

STORE = "0a1b2c3d-0000-4000-8000-000000000001"
ZERO, NULL = (1, 5), (1, 3)
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="device nodes are made by root"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    try:
        os.mknod(tmp_path / "probe", stat.S_IFCHR | 0o600, os.makedev(*ZERO))
        os.close(os.open(tmp_path / "probe", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"no device nodes here: {error}")
    return tmp_path / "gismo"


def test_a_node_is_a_device_of_its_own_and_of_any_user(folder: Path) -> None:
    nodes = Nodes(System(), folder)
    umask = os.umask(0o077)
    try:
        nodes.make(STORE, ZERO)
    finally:
        os.umask(umask)
    found = nodes.path(STORE).lstat()
    assert stat.S_ISCHR(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o666
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert nodes.number(STORE) == ZERO
    nodes.make(STORE, ZERO)
    assert nodes.path(STORE).lstat().st_ino == found.st_ino, "what is right is not touched"
    nodes.make(STORE, NULL)
    assert nodes.number(STORE) == NULL
    nodes.remove(STORE)
    nodes.remove(STORE)
    assert nodes.number(STORE) is None


def test_what_is_no_device_is_none_and_is_replaced(folder: Path) -> None:
    nodes = Nodes(System(), folder)
    folder.mkdir()
    nodes.path(STORE).write_text("a file")
    assert nodes.number(STORE) is None
    nodes.make(STORE, ZERO)
    assert nodes.number(STORE) == ZERO
    with pytest.raises(ValueError):
        nodes.path("../../etc/passwd")


def test_what_one_who_was_killed_left_goes(folder: Path) -> None:
    nodes = Nodes(System(), folder)
    nodes.make(STORE, ZERO)
    nodes.path(STORE).rename(folder / f".new-{STORE}")
    (folder / f".new-{'a' * 32}").touch()
    nodes.make(STORE, ZERO)
    fd = nodes.open(ZERO)
    assert os.read(fd, 4) == bytes(4)
    os.close(fd)
    assert [path.name for path in folder.iterdir()] == [STORE]


def test_processes_that_have_it_open_are_named_by_whatever_path(folder: Path) -> None:
    nodes = Nodes(System(), folder)
    nodes.make(STORE, (1, 7))  # /dev/full: hardly anybody has it open
    assert System().users((1, 7)) == ()
    code = "import os, sys; os.open('/dev/full', os.O_RDWR); print('open', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        (user,) = System().users((1, 7))
        assert user.startswith(f"process {other.pid} (python")
    finally:
        other.communicate()
    assert System().users((1, 7)) == ()
