"""Virtual environments that borrow their packages from others: made in a moment, as large as a folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE_PACKAGES = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def site_packages_of_tests() -> Path:
    """Where Ray, NumPy and the like lie for the tests themselves."""
    return Path(sys.prefix) / SITE_PACKAGES


def make(folder: Path, borrow: Sequence[Path], *, system_site: bool = False) -> Path:
    """An environment in `folder` that also sees the folders `borrow`, without their .pth files; its Python."""
    options = ["--without-pip", *(["--system-site-packages"] if system_site else [])]
    subprocess.run([sys.executable, "-m", "venv", *options, str(folder)], check=True)
    lend(folder, borrow)
    return folder / "bin" / "python"


def lend(folder: Path, borrow: Sequence[Path]) -> None:
    """Let an environment see these folders, after its own packages."""
    (folder / SITE_PACKAGES / "zz-borrowed.pth").write_text("".join(f"{path}\n" for path in borrow))


def add_this_tree(folder: Path) -> None:
    """What an editable install of this tree adds to an environment, with what loads the integration."""
    site_packages = folder / SITE_PACKAGES
    (site_packages / "gismo-tree.pth").write_text(f"{ROOT}\n")
    for name in ("gismo.pth", "gismo_boot.py"):
        (site_packages / name).symlink_to(ROOT / "gismo_core" / "ray" / name)
