"""Container images without an engine: a folder becomes an archive that `docker load` and `ctr images import` take.

One image is one layer. Archives are kept in the cache under names that change with all that went into them, so that
nothing is built twice and a changed recipe is never taken for the old one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import binaries

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK_BYTES = 1 << 20
_KEPT_S = 14 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Settings:
    """How a container of the image starts."""

    entrypoint: Sequence[str] = ()
    environment: Sequence[str] = ()
    user: str = ""
    stop_signal: str = ""
    folder: str = ""
    names: Sequence[str] = ()  # repository:tag, all of the same image


def key(*parts: object) -> str:
    """Of a result that depends on parts; a path stands for the file's content."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.read_bytes() if isinstance(part, Path) else repr(part).encode())
        whole.update(b"\0")
    return whole.hexdigest()[:12]


def folder() -> Path:
    """Where archives are kept."""
    path = binaries.cache() / "images"
    path.mkdir(parents=True, exist_ok=True)
    return path


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """A file of the cache; made now if it is not there, whole or not at all."""
    path = folder() / name
    locks = folder() / "locks"
    locks.mkdir(exist_ok=True)
    with binaries.alone(locks / name):
        if not path.exists():
            print(f"making {name}", file=sys.stderr, flush=True)
            part = path.with_name(f"{name}.part")
            make(part)
            part.rename(path)
            _forget_old(path)
        os.utime(path)  # when it was used last
    return path


def _forget_old(made: Path) -> None:
    """Those of the same kind under other keys that nobody has used for long: each is of a version that is gone, mostly."""
    kind = made.name.rpartition("-")[0]
    for path in made.parent.glob(f"{kind}-*.tar"):
        same_kind = path != made and path.name.rpartition("-")[0] == kind
        if same_kind and time.time() - path.stat().st_mtime > _KEPT_S:
            path.unlink()
            print(f"{path.name} was not used for two weeks: removed", file=sys.stderr, flush=True)


@contextmanager
def working_folder() -> Iterator[Path]:
    """A folder for a tree, of root and readable by all; gone afterwards, with what was left mounted in it."""
    work = Path(tempfile.mkdtemp(prefix="work-", dir=folder()))
    try:
        work.chmod(0o755)
        yield work
    finally:
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in reversed([point for point in mounts if point.startswith(f"{work}/")]):
            subprocess.run(["umount", "--lazy", point], check=True)
        shutil.rmtree(work)


def pack(tree: Path, path: Path) -> None:
    """A tar of a tree."""
    command = ["tar", "--create", f"--file={path}", f"--directory={tree}", "--numeric-owner", "--sort=name", "."]
    subprocess.run(command, check=True)


def unpack(path: Path, tree: Path) -> None:
    """The tree of a tar."""
    tree.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "--extract", f"--file={path}", f"--directory={tree}", "--numeric-owner"], check=True)


def write(layer: Path, settings: Settings, path: Path) -> None:
    """The archive of an image whose one layer is the tar `layer`."""
    digest = hashlib.sha256()
    with layer.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    container = {
        "Env": [_PATH, *settings.environment],
        "Entrypoint": list(settings.entrypoint) or None,
        "User": settings.user,
        "WorkingDir": settings.folder,
        "StopSignal": settings.stop_signal,
    }
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {name: value for name, value in container.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
        }
    ).encode()
    named = f"{hashlib.sha256(config).hexdigest()}.json"
    listed = [{"Config": named, "RepoTags": list(settings.names), "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        for name, content in ((named, config), ("manifest.json", json.dumps(listed).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        archive.add(layer, "layer.tar")


def write_tree(tree: Path, settings: Settings, path: Path) -> None:
    """The archive of an image that is a tree."""
    layer = path.with_name(f"{path.name}.layer")
    try:
        pack(tree, layer)
        write(layer, settings, path)
    finally:
        layer.unlink(missing_ok=True)
