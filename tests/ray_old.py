"""Other releases of Ray, each in an environment outside the tree, made when it is first wanted.

    from ray_old import OLDEST, python_of
    subprocess.run([python_of(OLDEST), "-c", "import ray, gismo_core"])

That Python has the Ray asked for, NumPy, pyarrow and pytest, and this tree as if installed editable: GISMO_STORE in its
environment is all that it takes. `make ray-old` makes the oldest one ahead (a minute or two, 700 MB, kept under
${XDG_CACHE_HOME:-~/.cache}/gismo).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import ray_venv

OLDEST = "2.57.0"  # compat.OLDEST, and what docs/ray.md claims
_BESIDE = ("click>=8", "numpy>=1.26", "pyarrow>=17", "pytest>=8.2", "pytest-timeout>=2.3")


def python_of(version: str) -> Path:
    """The Python of an environment with ray[default]==version; RuntimeError with pip's words where that fails."""
    packages = _packages(version)
    tag = hashlib.sha256(f"{packages} {ray_venv.ROOT}".encode()).hexdigest()[:12]
    thin = Path(sys.prefix) / f"ray-{version}-{tag}"
    python = thin / "bin" / "python"
    with _lock(thin.with_suffix(".lock")):
        if not (thin / "whole").exists():
            shutil.rmtree(thin, ignore_errors=True)
            ray_venv.make(thin, [packages])
            ray_venv.add_this_tree(thin)
            (thin / "whole").touch()
    return python


def _packages(version: str) -> Path:
    """The site-packages with that Ray, shared by all trees of this user."""
    wanted = [f"ray[default]=={version}", *_BESIDE]
    tag = hashlib.sha256(" ".join(wanted).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gismo"
    folder = cache / f"ray-{version}-py{platform.python_version()}-{tag}"
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_suffix(".lock")):
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "-q"]
            done = subprocess.run([*pip, "install", *wanted], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"pip could not install {' '.join(wanted)}:\n{done.stderr[-2000:]}")
            (folder / "whole").touch()
    return folder / ray_venv.SITE_PACKAGES


class _lock:
    """One process at a time makes an environment; the others wait and use it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


if __name__ == "__main__":
    print(python_of(sys.argv[1] if len(sys.argv) > 1 else OLDEST))
