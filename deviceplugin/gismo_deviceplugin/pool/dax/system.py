"""What carving asks of the kernel besides reading: every such call is here, so that tests can put a kernel of theirs in its place."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


class System:
    """The kernel of this node."""

    def __init__(self, sysfs: Path = Path("/sys")) -> None:
        self.sysfs = sysfs

    def write(self, attribute: Path, text: str) -> None:
        """Into a file of sysfs, as one write. OSError as the kernel has it."""
        fd = os.open(attribute, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def make_node(self, path: Path, number: tuple[int, int], mode: int) -> None:
        """A character device, whatever the umask."""
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(*number))
        path.chmod(mode)

    def rename(self, old: Path, new: Path) -> None:
        """A node; what had the new name is gone."""
        os.replace(old, new)

    def remove(self, path: Path) -> None:
        """A node, where it is."""
        path.unlink(missing_ok=True)

    def number(self, path: Path) -> tuple[int, int] | None:
        """Of the device that a path is; None where it is none."""
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
        return (os.major(found.st_rdev), os.minor(found.st_rdev)) if stat.S_ISCHR(found.st_mode) else None

    def open(self, path: Path) -> int:
        """For reading and writing; a file descriptor."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def users(self, number: tuple[int, int]) -> tuple[str, ...]:
        """Processes of this node that have a device open or mapped, by whatever path. Needs the node's own /proc.

        Dear, since every process is looked at: asked only where a device is to be taken away.
        """
        device = os.makedev(*number)
        found = []
        for process in sorted(_PROC.iterdir(), key=lambda one: one.name):
            if process.name.isdecimal() and int(process.name) != os.getpid() and device in _devices(process):
                with contextlib.suppress(OSError):  # it has ended
                    found.append(f"process {process.name} ({(process / 'comm').read_text().strip()})")
        return tuple(found)


def _devices(process: Path) -> Iterator[int]:
    """Of the character devices that it has open, or maps after having closed them."""
    with contextlib.suppress(OSError):
        for name in os.listdir(process / "fd"):
            yield from _device(str(process / "fd" / name))
    with contextlib.suppress(OSError):
        for line in (process / "maps").read_text(errors="replace").splitlines():
            span, access, _, _, inode, *_ = line.split(maxsplit=5)
            if access[3] == "s" and inode != "0":  # a device of memory is always mapped shared
                # /proc/PID/maps has a path only, which may mean another file by now or in another container.
                yield from _device(
                    str(process / "map_files" / "-".join(f"{int(one, 16):x}" for one in span.split("-")))
                )


def _device(path: str) -> Iterator[int]:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        if stat.S_ISCHR(found.st_mode):
            yield found.st_rdev
