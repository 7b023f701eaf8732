"""The images that kubeadm wants, under the names that it asks for, each around one program built here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import binaries

from e2e import archive, debian

_PAUSE = "build/pause/linux/pause.c"  # of the module k8s.io/kubernetes
_PROXY_PACKAGES = ("conntrack", "iptables", "kmod", "nftables")


def all_of_them(pause_name: str) -> list[Path]:
    """Archives of all that `kubeadm config images list` names, and of pause under pause_name too."""
    kubeadm = binaries.ensure("kubeadm")
    told = [str(kubeadm), "config", "images", "list", f"--kubernetes-version=v{binaries.KUBERNETES}"]
    names = subprocess.run(told, capture_output=True, text=True, check=True).stdout.split()
    return [_image(name, pause_name) for name in names]


def _image(name: str, pause_name: str) -> Path:
    program = name.rpartition(":")[0].rpartition("/")[2]
    if program == "pause":
        return _pause((name, pause_name))
    binary = binaries.ensure(program)
    entrypoint = "/coredns" if program == "coredns" else f"/usr/local/bin/{program}"
    settings = archive.Settings([entrypoint], names=[name])
    base = debian.tree("proxy", _PROXY_PACKAGES) if program == "kube-proxy" else None

    def fill(tree: Path) -> None:
        if base:
            archive.unpack(base, tree)
        target = tree / entrypoint.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(binary, target)

    return _kept(program, archive.key(settings, binary.parent.name, base and base.name), settings, fill)


def _pause(names: tuple[str, str]) -> Path:
    source = binaries.module("k8s.io/kubernetes", f"v{binaries.KUBERNETES}") / _PAUSE
    settings = archive.Settings(["/pause"], user="65535:65535", names=sorted(set(names)))

    def fill(tree: Path) -> None:
        command = ["gcc", "-Os", "-static", f"-DVERSION={names[0].rpartition(':')[2]}", "-o", str(tree / "pause")]
        subprocess.run([*command, str(source)], check=True)

    return _kept("pause", archive.key(settings, source), settings, fill)


def _kept(program: str, key: str, settings: archive.Settings, fill: Callable[[Path], None]) -> Path:
    def make(path: Path) -> None:
        with archive.working_folder() as work:
            tree = work / "tree"
            for folder in ("etc", "tmp", "usr/local/bin"):
                (tree / folder).mkdir(parents=True, exist_ok=True)
            (tree / "tmp").chmod(0o1777)
            fill(tree)
            archive.write_tree(tree, settings, path)

    return archive.kept(f"image-{program}-{key}.tar", make)
