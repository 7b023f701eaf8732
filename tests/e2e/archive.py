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
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


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


def pack(tree: Path, path: Path, below: str = ".") -> None:
    """A tar of a tree, or of one folder in it."""
    command = ["tar", "--create", f"--file={path}", f"--directory={tree}", "--numeric-owner", "--sort=name", below]
    subprocess.run(command, check=True)


def unpack(path: Path, tree: Path) -> None:
    """The tree of a tar."""
    tree.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "--extract", f"--file={path}", f"--directory={tree}", "--numeric-owner"], check=True)


def write(layer: Path, settings: Settings, path: Path) -> None:
    """The archive of an image whose one layer is the tar `layer`."""
    config = _config(settings, [_digest(layer)])
    named = f"{hashlib.sha256(config).hexdigest()}.json"
    listed = [{"Config": named, "RepoTags": list(settings.names), "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        _add(archive, named, config)
        _add(archive, "manifest.json", json.dumps(listed).encode())
        archive.add(layer, "layer.tar")


def write_upon(base: Path, layer: Path, images: Sequence[Settings], path: Path) -> None:
    """The archive of images that share a layer upon that of the archive `base`, which has to be there when they are loaded.

    In OCI's layout, which containerd takes without the layers that it has already: so it is as small as what it adds.
    """
    with tarfile.open(base) as archive:
        below = archive.getmember("layer.tar").size
        (listed,) = json.loads(_content(archive, "manifest.json"))
        (digest,) = json.loads(_content(archive, listed["Config"]))["rootfs"]["diff_ids"]
    own = _digest(layer)
    layers = [
        {"mediaType": _OCI_LAYER, "digest": digest, "size": below},
        {"mediaType": _OCI_LAYER, "digest": own, "size": layer.stat().st_size},
    ]
    manifests = []
    with tarfile.open(path, "w") as archive:
        _add(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        archive.add(layer, _blob(own))
        for settings in images:
            config = _add_blob(archive, _OCI_CONFIG, _config(settings, [digest, own]))
            manifest = {"schemaVersion": 2, "mediaType": _OCI_MANIFEST, "config": config, "layers": layers}
            described = _add_blob(archive, _OCI_MANIFEST, json.dumps(manifest).encode())
            for name in settings.names:
                annotations = {"io.containerd.image.name": f"docker.io/{name}"}
                manifests.append({**described, "annotations": annotations})
        _add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": manifests}).encode())


def _config(settings: Settings, layers: Sequence[str]) -> bytes:
    environment = dict(one.split("=", 1) for one in (_PATH, *settings.environment))
    container = {
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Entrypoint": list(settings.entrypoint) or None,
        "User": settings.user,
        "WorkingDir": settings.folder,
        "StopSignal": settings.stop_signal,
    }
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {name: value for name, value in container.items() if value},
        "rootfs": {"type": "layers", "diff_ids": list(layers)},
    }
    return json.dumps(config).encode()


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add_blob(archive: tarfile.TarFile, media_type: str, content: bytes) -> dict[str, object]:
    """Its descriptor."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if _blob(digest) not in archive.getnames():
        _add(archive, _blob(digest), content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is not a file of {archive.name!r}")
    return file.read()


def write_tree(tree: Path, settings: Settings, path: Path) -> None:
    """The archive of an image that is a tree."""
    layer = path.with_name(f"{path.name}.layer")
    try:
        pack(tree, layer)
        write(layer, settings, path)
    finally:
        layer.unlink(missing_ok=True)
