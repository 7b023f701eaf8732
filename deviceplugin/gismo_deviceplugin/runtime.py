"""The runtime that containers get: `gismo_core` of this agent, laid out on the node once for each version.

Containers mount the link `current`, which is followed when a container starts: so one that runs keeps the version that it
began with, and one that starts again gets the node's. Old versions stay.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import uuid
from pathlib import Path

import gismo_core

CURRENT = "current"
_LAY_OUT_S = 300.0


class NoRuntime(RuntimeError):
    """It cannot be laid out; the message says why."""


def ensure(root: Path) -> Path:
    """Lay it out below root where it is not, and let the link point at it; the link's path. Safe to repeat and to be killed."""
    folder = root / _version()
    if not folder.exists():
        # A process of its own, since laying out is part of the Ray integration, which an agent does not import.
        command = [sys.executable, "-m", "gismo_core.ray.inject", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LAY_OUT_S)
        except subprocess.TimeoutExpired as error:
            raise NoRuntime(f"the runtime for containers is not laid out in {root} after {_LAY_OUT_S:.0f} s") from error
        if done.returncode and not folder.exists():
            raise NoRuntime(f"the runtime for containers cannot be laid out in {root}: {done.stderr.strip()[-1000:]}")
    link = root / CURRENT
    if not (link.is_symlink() and link.readlink() == Path(folder.name)):
        making = root / f".{CURRENT}-{uuid.uuid4().hex[:8]}"
        try:
            making.symlink_to(folder.name)
            os.replace(making, link)
        except OSError as error:
            raise NoRuntime(f"{link} cannot be made: {error.strerror}") from error
    return link


def _version() -> str:
    """Changes with every file of the package: two builds of one release must not be taken for one another."""
    package = Path(gismo_core.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.suffix in (".py", ".so", ".pth"):
            digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
