"""The character devices that containers get: one for each store of this node, by a path that never means another store.

A container runtime looks the path up at each start of a container, allows the device that it finds there, and no other. So a
node is made when its device is whole, and taken away before its device is touched.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from gismo_deviceplugin.pool.dax.system import System

FOLDER = Path("/dev/gismo")
_NEW = ".new-"
_MODE = 0o666  # reached only through what a container is given: the folder is root's alone


class Nodes:
    """In a folder of the node's /dev."""

    def __init__(self, system: System, folder: Path = FOLDER) -> None:
        self._system = system
        self._folder = folder

    def path(self, store_uuid: str) -> Path:
        """Of a store."""
        return self._folder / str(uuid.UUID(store_uuid))

    def number(self, store_uuid: str) -> tuple[int, int] | None:
        """Of its device; None where there is no node."""
        return self._system.number(self.path(store_uuid))

    def make(self, store_uuid: str, number: tuple[int, int]) -> None:
        """It is there afterwards, and is this device."""
        path = self.path(store_uuid)
        if self._system.number(path) != number:
            self._put(path, number, _MODE)

    def remove(self, store_uuid: str) -> None:
        """No container can start with it afterwards."""
        self._system.remove(self.path(store_uuid))

    def open(self, number: tuple[int, int]) -> int:
        """A device for the agent itself; a file descriptor. No node of it stays."""
        self._prepare()
        path = self._folder / f"{_NEW}{uuid.uuid4().hex}"
        self._system.make_node(path, number, 0o600)
        try:
            return self._system.open(path)
        finally:
            self._system.remove(path)

    def _put(self, path: Path, number: tuple[int, int], mode: int) -> None:
        self._prepare()
        making = self._folder / f"{_NEW}{path.name}"
        self._system.remove(making)  # of one who was killed
        self._system.make_node(making, number, mode)
        self._system.rename(making, path)

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._folder.stat().st_uid == os.geteuid():
            self._folder.chmod(0o700)
        for one in self._folder.glob(f"{_NEW}{'[0-9a-f]' * 32}"):
            self._system.remove(one)  # of one who was killed between making and opening it
