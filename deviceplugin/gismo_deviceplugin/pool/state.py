"""The state directories of this node: one for each store, in which all processes of the node that use it meet."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from gismo_core import node_marker
from gismo_core.node_marker import NodeMarker
from gismo_deviceplugin.kubelet.shares import MARKER

ROOT = Path("/run/gismo/stores")
# Any user's processes may look for it in there, and nobody takes the marker away, which is root's.
_MODE = 0o1777
# The library's own folder in it, which it would make itself. But then it would be of the first user who comes, and one who
# trusts neither him nor his files could not use the store. All its users have to be able to take away what the dead left.
_MEETING_MODE = 0o777


class StateDirectories:
    """Made and marked by the agent, mounted into containers."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """Where they are; other state of this boot may be there too."""
        return self._root

    def path(self, store_uuid: str) -> Path:
        """Of the directory of a store."""
        return self._root / str(uuid.UUID(store_uuid))

    def prepare(self, store_uuid: str, host_id: int) -> Path:
        """Make it what it has to be in this boot of the node, and mark it; safe to repeat. ValueError as make()."""
        folder = self.make(store_uuid, host_id)
        self.mark(store_uuid, host_id)
        return folder

    def make(self, store_uuid: str, host_id: int) -> Path:
        """Make it what it has to be in this boot of the node, but for the mark, which lets containers in; safe to repeat.

        What an earlier boot left, where the root is not on a tmpfs, is void and goes. A directory that has another host's
        marker of this boot is never taken over: ValueError.
        """
        wanted = NodeMarker(host_id, node_marker.boot_id(), uuid.UUID(store_uuid))
        folder = self.path(store_uuid)
        there = self.marker(store_uuid)
        if there == wanted:
            return folder
        if there is not None and there.boot_id == wanted.boot_id:
            raise ValueError(
                f"{folder} is of host id {there.host_id} in this boot, and cannot become that of {host_id}"
            )
        if there is not None:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(_MODE)
        _meeting_place(folder / uuid.UUID(store_uuid).hex)
        return folder

    def mark(self, store_uuid: str, host_id: int) -> None:
        """Last: who finds the mark finds all."""
        wanted = NodeMarker(host_id, node_marker.boot_id(), uuid.UUID(store_uuid))
        if self.marker(store_uuid) == wanted:
            return
        folder = self.path(store_uuid)
        making = folder / f".{MARKER}"
        making.write_text(wanted.text())
        making.chmod(0o644)
        making.rename(folder / MARKER)

    def marker(self, store_uuid: str) -> NodeMarker | None:
        """What it is marked as, of whatever boot; None where it is not marked."""
        try:
            return node_marker.parse((self.path(store_uuid) / MARKER).read_text())
        except (OSError, ValueError):
            return None

    def remove(self, store_uuid: str) -> None:
        """When the store is gone and nobody uses it."""
        shutil.rmtree(self.path(store_uuid), ignore_errors=True)

    def stores(self) -> frozenset[str]:
        """Stores that have one here."""
        try:
            names = os.listdir(self._root)
        except FileNotFoundError:
            return frozenset()
        return frozenset(name for name in names if len(name) == 36)


def _meeting_place(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_uid == os.geteuid():  # else of before an upgrade: its processes are at home in it
            os.fchmod(fd, _MEETING_MODE)
    finally:
        os.close(fd)
