"""Where the benchmark's stores lie: fresh ones, and never over something that somebody may still want.

A medium is a directory of a memory file system (default: one made under /dev/shm and removed at the end), a file,
or a device-DAX device.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["directory", "file", "dax"]

MARGIN_BYTES = 2 << 20
"""Head and tail of a medium where a store's superblocks or a pool's labels lie."""


class RefusedError(Exception):
    """The medium holds something, or cannot take a store; says what to do."""


@dataclass(frozen=True, slots=True)
class Medium:
    """Where stores are made. ``work`` is the run's own temporary directory on tmpfs, also for state directories."""

    kind: Kind
    path: Path
    work: Path
    keep: bool = False
    """The file was there before: empty it at the end, but leave it."""

    def size_bytes(self) -> int:
        """Bytes that a store could have at most, as far as free memory tells."""
        if self.kind == "dax":
            return dax_size_bytes(self.path)
        where = self.path if self.path.exists() else self.path.parent
        free = os.statvfs(where)
        return min(free.f_bavail * free.f_frsize, memory_available_bytes())

    def describe(self) -> str:
        """For the machine's description."""
        return f"{self.kind}:{self.path}"

    def store_spec(self) -> str:
        """As ``gismo_open`` takes it."""
        if self.kind == "directory":
            return f"file:{self.path / 'store'}"
        return f"{self.kind}:{self.path}"

    @contextlib.contextmanager
    def fresh(self, format_: Callable[[str], None], beside: str = "") -> Iterator[str]:
        """Format a store, hand out its name, and remove it. beside: a further one at the same time has this name."""
        spec = self.store_spec()
        if beside:
            if self.kind == "dax":
                raise RefusedError(f"{self.path}: a device holds one store at a time")
            spec += f".{beside}"
        path = Path(spec.partition(":")[2])
        if self.kind == "dax":
            format_(spec)
            yield spec
            return
        if beside and path.exists():
            raise RefusedError(f"{path} is in the way of the benchmark: move it elsewhere")
        try:
            if not self.keep:
                path.unlink(missing_ok=True)
            format_(spec)
            yield spec
        finally:
            if self.keep and not beside:
                os.truncate(path, 0)
            else:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def scratch(self, nbytes: int, *, after_bytes: int, huge: bool) -> Iterator[mmap.mmap]:
        """Warm shared memory of the store's kind: a second file beside it, or the device behind it."""
        if self.kind == "dax":
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            offset = -(-after_bytes // (1 << 30)) * (1 << 30)
            remove: Path | None = None
        else:
            remove = (self.path if self.kind == "directory" else self.path.parent) / f"gismo-bench-{os.getpid()}.ref"
            fd = os.open(remove, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            offset = 0
        try:
            if remove is not None:
                os.ftruncate(fd, nbytes)
            with mmap.mmap(fd, nbytes, mmap.MAP_SHARED, offset=offset) as memory:
                if huge and remove is not None:
                    memory.madvise(mmap.MADV_HUGEPAGE)
                warm(memory)
                yield memory
        finally:
            os.close(fd)
            if remove is not None:
                remove.unlink(missing_ok=True)


def warm(memory: mmap.mmap) -> None:
    """Write every page, with bytes that are not all alike."""
    piece = bytes(range(256)) * 4096
    for at in range(0, len(memory), len(piece)):
        rest = min(len(piece), len(memory) - at)
        memory[at : at + rest] = piece[:rest]


def memory_available_bytes() -> int:
    """What the kernel thinks can still be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return sys.maxsize


def dax_size_bytes(path: Path) -> int:
    """Size of a device-DAX device, from sysfs."""
    return _dax_number(path, "size")


def _dax_number(path: Path, name: str) -> int:
    device = path.stat().st_rdev
    where = Path(f"/sys/dev/char/{os.major(device)}:{os.minor(device)}/{name}")
    try:
        return int(where.read_text(), 0)
    except (OSError, ValueError) as error:
        raise RefusedError(f"{path}: no device-DAX device: {where} does not tell its {name} ({error})") from error


def parse_store(text: str) -> tuple[Kind, Path]:
    """``file:PATH``, ``dax:PATH``, or a bare path: dax for a character device, else a file or a directory."""
    kind, colon, rest = text.partition(":")
    name = rest if colon and kind in ("file", "dax") else text
    if not name:
        raise RefusedError(f"{text!r} names no path; say file:PATH, dax:PATH or a directory")
    path = Path(name)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if kind == "dax" and colon:
            raise RefusedError(f"{path}: no such device") from None
        if not path.parent.is_dir():
            raise RefusedError(f"{path}: there is no directory {path.parent}") from None
        return "file", path
    if kind == "dax" and colon:
        if not stat.S_ISCHR(mode):
            raise RefusedError(f"{path}: not a character device; a file is given as file:{path}")
        return "dax", path
    if stat.S_ISDIR(mode):
        return "directory", path
    if stat.S_ISCHR(mode):
        if kind == "file" and colon:
            raise RefusedError(f"{path}: a character device; device-DAX is given as dax:{path}")
        return "dax", path
    if stat.S_ISREG(mode):
        return "file", path
    raise RefusedError(f"{path}: neither a file, nor a directory, nor a device-DAX device")


def refuse_if_used(kind: Kind, path: Path, probe: Callable[[str], int | None]) -> None:
    """Raise :class:`RefusedError` unless the medium is empty: no store, no pool label, no mapping, no bytes.

    probe(spec) returns the size of the store that is there, or None.
    """
    if kind == "directory" or not path.exists():
        return
    again = f"`--destroy` makes the benchmark overwrite it; what {path} holds is lost then"
    users = mappers(path)
    if users:
        raise RefusedError(f"{path}: mapped by process {', '.join(map(str, users))}. End it first; {again}.")
    size = probe(f"{kind}:{path}")
    if size is not None:
        raise RefusedError(f"{path}: holds a Gismo store of {size} bytes. {again[0].upper()}{again[1:]}.")
    for where, data in margins(kind, path):
        if data.strip(b"\0"):
            raise RefusedError(
                f"{path}: its {where} is not empty (a pool label, or another's data). {again[0].upper()}{again[1:]}."
            )


def margins(kind: Kind, path: Path) -> Iterator[tuple[str, bytes]]:
    """("head" | "tail", bytes): the first and last 2 MiB, where superblocks and pool labels lie."""
    size = dax_size_bytes(path) if kind == "dax" else path.stat().st_size
    if size == 0:
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        # A device-DAX device can only be mapped, not read, and in whole alignments.
        step = _dax_number(path, "align") if kind == "dax" else mmap.ALLOCATIONGRANULARITY
        tail = max(0, size - MARGIN_BYTES) // step * step
        head_bytes = min(size, -(-MARGIN_BYTES // step) * step)
        for where, offset, length in (("head", 0, head_bytes), ("tail", tail, size - tail)):
            try:
                with mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset) as memory:
                    yield where, memory[:MARGIN_BYTES] if where == "head" else memory[-MARGIN_BYTES:]
            except OSError as error:
                raise RefusedError(
                    f"{path}: its {where} cannot be read ({error.strerror}), so nobody knows what it holds. "
                    "`--destroy` overwrites it unseen."
                ) from error
    finally:
        os.close(fd)


def mappers(path: Path) -> list[int]:
    """Processes that map the medium, as far as /proc lets us see."""
    wanted = path.stat()
    device = stat.S_ISCHR(wanted.st_mode)
    name = str(path.resolve())
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            lines = (process / "maps").read_text(errors="replace").splitlines()
        except OSError:
            continue  # gone, or another user's
        for line in lines:
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and (
                fields[5] == name if device else int(fields[4]) == wanted.st_ino and fields[5] == name
            ):
                found.append(int(process.name))
                break
    return sorted(found)
