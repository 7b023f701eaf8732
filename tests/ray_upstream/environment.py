"""The Python that runs Ray's tests: this tree's packages, and the plug-ins of pytest that only Ray's tests need."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import ray_venv
from ray_upstream import finder

_PLUGINS = ("pytest-asyncio>=1.0", "pytest-lazy-fixtures>=1.1")
_PTH = f"import os; os.environ.get({finder.VARIABLE!r}) and __import__('ray_upstream_finder').register()\n"


def python(more: Sequence[str] = ()) -> Path:
    """Of an environment under ${XDG_CACHE_HOME:-~/.cache}/gismo, made when first wanted, with the packages `more` too.

    SystemExit with pip's words where one cannot be had.
    """
    wanted = [*_PLUGINS, *sorted(more)]
    tag = hashlib.sha256(f"{wanted} {sys.prefix} {_PTH}".encode()).hexdigest()[:12]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gismo" / f"ray-upstream-{tag}"
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = ray_venv.make(folder, [ray_venv.site_packages_of_tests()])
        ray_venv.add_this_tree(folder)
        site_packages = folder / ray_venv.SITE_PACKAGES
        (site_packages / "ray_upstream_finder.py").symlink_to(Path(finder.__file__))
        (site_packages / "ray-upstream.pth").write_text(_PTH)
        pip = [sys.executable, "-m", "pip", "--python", str(made), "--disable-pip-version-check", "-q", "install"]
        done = subprocess.run([*pip, *wanted], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"pip could not install {' '.join(wanted)}:\n{done.stderr[-2000:]}")
        (folder / "whole").touch()
    return folder / "bin" / "python"
