"""Lays out a runtime that is put into other people's images: `python -m gismo_core.ray.inject DIR`.

    DIR/python/gismo_core/                        the package with libgismo.so, nothing else
    DIR/boot/                                     PYTHONPATH names it: a sitecustomize.py that chains, and gismo_boot.py
                                                  under a name of its own, as the image may have one
    DIR/lib/pythonX.Y/site-packages/gismo.pth     PYTHONUSERBASE=DIR: read by plain Python and by venvs with system site

Either variable will do; docs/ray.md, Loading, says which works where. All places are relative, so DIR may be mounted
anywhere. An image's own gismo_core, in whatever place of its path, comes before the injected one.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import sys
import tempfile
from pathlib import Path

import gismo_core
from gismo_core.errors import GismoError, InvalidArgument

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "native", "*.c")


def lay_out(folder: str | os.PathLike[str]) -> Path:
    """Make the folder and return it, resolved. It appears at once and whole, world-readable.

    Errors: InvalidArgument where it exists with something in it, or where libgismo.so was not built; OSError.
    """
    target = Path(folder).resolve()
    package = Path(gismo_core.__file__).resolve().parent
    if not (package / "_lib" / "libgismo.so").is_file():
        raise InvalidArgument(f"{package}/_lib has no libgismo.so: run `make build`, or install the wheel")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidArgument(
            f"{target} exists already: name a new folder (one for each version, and a link to the one in use)"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _fill(made, package)
        made.chmod(0o755)
        os.replace(made, target)  # also over an empty folder
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return target


def _fill(root: Path, package: Path) -> None:
    shutil.copytree(package, root / "python" / "gismo_core", ignore=_LEFT_OUT)
    # For this Python; another one compiles at each start, where it cannot write here. By no date: images change dates.
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(root / "python", quiet=2, invalidation_mode=unchecked)
    boot = root / "boot"
    boot.mkdir()
    shutil.copy(package / "ray" / "gismo_boot.py", boot / "gismo_injected.py")
    shutil.copy(package / "ray" / "injected" / "sitecustomize.py", boot)
    for python in PYTHONS:
        site_packages = root / "lib" / f"python{python}" / "site-packages"
        site_packages.mkdir(parents=True)
        shutil.copy(package / "ray" / "injected" / "gismo.pth", site_packages)


def main(arguments: list[str]) -> int:
    """The command; returns its exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m gismo_core.ray.inject DIR\n\n" + (__doc__ or ""), file=sys.stderr)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    try:
        print(lay_out(arguments[0]))
    except (GismoError, OSError) as error:
        print(f"gismo_core.ray.inject: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
