"""Debian as a tree: what images with more than one program in them are made of."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from e2e import archive

SUITE = "trixie"  # its systemd still runs under cgroup v1
_RECIPE = 1  # one more whenever a tree made by other code must not be taken for one of this


class BootstrapFailed(RuntimeError):
    """debootstrap failed; the message has the end of what it said."""


def tree(name: str, packages: Sequence[str]) -> Path:
    """A tar of a minimal Debian with packages, from the cache or made now."""

    def make(path: Path) -> None:
        with archive.working_folder() as work:
            told = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", SUITE, str(work / "tree")]
            done = subprocess.run(told, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BootstrapFailed(f"{name}: debootstrap: {(done.stdout + done.stderr)[-2000:]}")
            for unneeded in ("var/cache/apt/archives", "var/lib/apt/lists"):
                for file in (work / "tree" / unneeded).glob("*"):
                    if file.is_file():
                        file.unlink()
            archive.pack(work / "tree", path)

    return archive.kept(f"debian-{name}-{archive.key(SUITE, sorted(packages), _RECIPE)}.tar", make)
