"""A pool's memory as a directory on tmpfs or hugetlbfs that all nodes share: a file for the label, one for each store.

`label` holds the two ends of the pool label, one behind the other. Each Gismo namespace has a file named by the UUID of
its store, and a container gets that file alone. The capacity is what can be handed out; the label comes on top. Only the
writer node makes and removes files; a file gets its name when it is formatted whole, so who dies meanwhile leaves nothing
that could be taken for a store.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import gismo_core
from gismo_deviceplugin.pool.label import END_BYTES, LabelRange
from gismo_deviceplugin.pool.medium import Holders, NotThere, Progress, Unfit, check_coherence, format_store

_LABEL = "label"
_NEW = ".new"
_MEMORY = ("tmpfs", "hugetlbfs")
_MOUNTS = Path("/proc/self/mountinfo")
_PROC = Path("/proc")
_MEMINFO = Path("/proc/meminfo")


class LabelFile:
    """The label's file as the ends of one memory (records.Memory)."""

    def __init__(self, path: Path, capacity_bytes: int) -> None:
        self.size_bytes = capacity_bytes + 2 * END_BYTES
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            there = os.fstat(fd).st_size
            if there not in (0, 2 * END_BYTES):
                raise Unfit(
                    f"{path} has {there} bytes, and a pool label {2 * END_BYTES}: it is another program's file; give the pool a "
                    "directory of its own"
                )
            os.ftruncate(fd, 2 * END_BYTES)
            self._map = mmap.mmap(fd, 2 * END_BYTES)
        finally:
            os.close(fd)

    def read(self, offset: int, length: int) -> bytes:
        """Of one of the ends."""
        at = self._at(offset, length)
        return self._map[at : at + length]

    def write(self, offset: int, data: bytes) -> None:
        """The same memory for all nodes, one kernel: seen by them at once."""
        at = self._at(offset, len(data))
        self._map[at : at + len(data)] = data

    def close(self) -> None:
        """No access after it."""
        self._map.close()

    def _at(self, offset: int, length: int) -> int:
        tail = self.size_bytes - END_BYTES
        at = offset if offset < END_BYTES else offset - tail + END_BYTES
        if not (0 <= offset < END_BYTES or tail <= offset) or at + length > 2 * END_BYTES:
            raise ValueError(f"{offset} is not in the pool label")
        return at


class EmulatedPool:
    """One such directory on this node (medium.Medium)."""

    one_kernel = True  # its nodes are of one machine
    is_resizable = True
    is_volatile = True

    def __init__(self, directory: Path, capacity_bytes: int) -> None:
        self._directory = directory
        self._capacity_bytes = capacity_bytes

    @property
    def capacity_bytes(self) -> int:
        """As the pool has it."""
        return self._capacity_bytes

    def check(self) -> None:
        """Can this be a pool? Unfit, if not."""
        directory = self._directory
        if not directory.is_absolute():
            raise Unfit(f"{directory} is not an absolute path")
        if directory.is_symlink() or not directory.is_dir():
            raise Unfit(
                f"{directory} is not a directory on this node: mount one tmpfs there that all nodes of the pool share (on one "
                f"machine: `mount -t tmpfs -o size=8G tmpfs {directory}`, and give it to each node)"
            )
        kind = _file_system(directory)
        if kind not in _MEMORY:
            raise Unfit(
                f"{directory} is on {kind}, not on tmpfs or hugetlbfs: emulated memory must be memory, "
                "and nodes that share a disk do not share that; mount a tmpfs there, and give it to each node of the pool"
            )
        others = [] if (directory / _LABEL).exists() else sorted(entry.name for entry in os.scandir(directory))
        if others:  # such as /dev/shm: what is in it would be locked away from those whose it is
            raise Unfit(
                f"{directory} is no pool and not empty ({', '.join(others[:3])}): give the pool a directory of its own, or empty it"
            )
        # Of Gismo alone: a container is given a file of it, never the directory.
        if directory.stat().st_uid == os.geteuid():
            directory.chmod(0o700)

    def open_label(self) -> LabelFile:
        """The label's memory; empty where there was none."""
        return LabelFile(self._directory / _LABEL, self._capacity_bytes)

    def label_key(self) -> str:
        """What tells this memory from any other in this boot of the node, for as long as it is mounted."""
        found = (self._directory / _LABEL).stat()
        return f"{found.st_dev}:{found.st_ino}"

    def check_blank(self) -> None:
        """The label's file is the pool's own, and was made just now."""

    def carve(
        self, ranges: Iterable[LabelRange], coherence: str, progress: Progress | None = None
    ) -> Mapping[str, Unfit]:
        """The files are made by formatting, for all nodes at once."""
        return {}

    def drop_all_but(self, stores: frozenset[str], holders: Holders) -> None:
        """A node has no end of its own of any store."""

    def path(self, store_uuid: str) -> Path:
        """Of the file of a store."""
        return self._directory / str(uuid.UUID(store_uuid))

    def verify(self, one: LabelRange, coherence: str) -> None:
        """Is the store of this range there, whole and no other? NotThere, or Unfit where what is there is something else."""
        path = self.path(one.store_uuid)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise NotThere(f"the store of {one.namespace} is not formatted yet") from None
        if size != one.size_bytes:
            raise Unfit(f"{path} has {size} bytes, and the range of {one.namespace} {one.size_bytes}")
        try:
            info = gismo_core.probe(path)
        except gismo_core.GismoError as error:
            raise NotThere(f"there is no store in the range of {one.namespace}: {error}") from error
        if info.store_uuid != uuid.UUID(one.store_uuid):
            raise Unfit(f"{path} holds store {info.store_uuid}: was a file copied over it?")
        check_coherence(one, info, coherence)

    def format(self, one: LabelRange, coherence: str, progress: Progress | None = None) -> None:
        """By the writer node: make the store of this range where it is not there. Unfit where there is no memory for it."""
        with contextlib.suppress(NotThere):
            self.verify(one, coherence)
            return
        available = _available_bytes()
        if _file_system(self._directory) == "tmpfs" and one.size_bytes > available // 2:
            raise Unfit(
                f"{one.namespace} takes {one.size_bytes >> 20} MiB of this node's memory, of which {available >> 20} MiB are "
                "available, and emulated memory may take half of it: make it smaller, or give the nodes more"
            )
        path = self.path(one.store_uuid)
        making = path.with_name(path.name + _NEW)
        making.unlink(missing_ok=True)  # of a writer that died
        try:
            format_store(making, one, coherence, progress, is_device=False)
            making.rename(path)
        except BaseException:
            making.unlink(missing_ok=True)
            raise

    def release(self, one: LabelRange, coherence: str, progress: Progress | None = None) -> None:
        """A node has no end of its own of it."""

    def zero(self, one: LabelRange, progress: Progress | None = None) -> None:
        """Give the memory back, which is zeroed by that."""
        self.path(one.store_uuid).unlink(missing_ok=True)

    def users(self, store_uuid: str) -> tuple[str, ...]:
        """Processes of this node that map the store, also without a share: for people. Needs the node's own /proc.

        Dear, since every process is looked at: asked only where a range is to be given back.
        """
        try:
            found = self.path(store_uuid).stat()
        except FileNotFoundError:
            return ()
        # As the lines of /proc/PID/maps end: device, inode, path.
        wanted = f" {os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x} {found.st_ino} "
        users = []
        for process in _PROC.iterdir():
            if process.name.isdecimal():
                with contextlib.suppress(OSError):  # it has ended
                    if wanted in (process / "maps").read_text(errors="replace"):
                        users.append(f"process {process.name} ({(process / 'comm').read_text().strip()})")
        return tuple(users)

    def stores(self) -> frozenset[str]:
        """UUIDs of all stores that lie here, also of those that no layout knows any more."""
        return frozenset(name for name in self._names() if not name.endswith(_NEW))

    def _names(self) -> Iterator[str]:
        for entry in os.scandir(self._directory):
            with contextlib.suppress(ValueError):
                uuid.UUID(entry.name.removesuffix(_NEW))
                yield entry.name


def _file_system(path: Path) -> str:
    """The kind of file system that a path lies on, such as "tmpfs"."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text().splitlines():
        before, _, after = line.partition(
            " - "
        )  # proc(5): the third field is the device, the first behind the dash the kind
        if before.split()[2] == wanted:
            return after.split()[0]
    return "unknown"


def _available_bytes() -> int:
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise OSError(f"{_MEMINFO} has no MemAvailable")
