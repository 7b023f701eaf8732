"""Ray's image and that of KubeRay's operator, made as a user's stock ones are: Ray from PyPI, user 1000."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import binaries

from e2e import archive, debian

RAY = "2.60.0"
RAY_NAME = f"gismo-e2e/ray:{RAY}"
ENVIRONMENT = ("HOME=/home/ray", "LANG=C.UTF-8")
USER = 1000
_PACKAGES = ("ca-certificates", "procps", "python3", "python3-pip", "wget")  # KubeRay's probes call wget
_ALSO = ("numpy",)  # of what stock images have beside Ray
_RAY_RECIPE = 2
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


class RayImageFailed(RuntimeError):
    """pip failed in the image's tree; the message has the end of what it said."""


def ray() -> Path:
    """The archive of an image with Ray in Debian's Python, called RAY_NAME."""
    settings = settings_of(RAY_NAME)

    def make(path: Path) -> None:
        with archive.working_folder() as work:
            tree = work / "tree"
            archive.unpack(tree_below(), tree)
            _chroot(tree, "useradd", "--uid=1000", "--user-group", "--create-home", "--shell=/bin/bash", "ray")
            _install(tree)
            archive.write_tree(tree, settings, path)

    return archive.kept(
        f"image-ray-{archive.key(settings, debian.SUITE, _PACKAGES, RAY, _ALSO, _RAY_RECIPE)}.tar", make
    )


def settings_of(name: str, *environment: str) -> archive.Settings:
    """How a container of Ray's image starts, and with more of an environment, of an image upon it."""
    return archive.Settings(
        environment=[*ENVIRONMENT, *environment], user=f"{USER}:{USER}", folder="/home/ray", names=[name]
    )


def tree_below() -> Path:
    """Ray's image without Ray: a tar of Debian with its Python."""
    return debian.tree("ray", _PACKAGES)


def operator(name: str) -> Path:
    """The archive of KubeRay's operator under the name that its manifests ask for."""
    binary = binaries.ensure("kuberay-operator")
    # A number as user, so that runAsNonRoot can be checked.
    settings = archive.Settings(["/manager"], user="65532:65532", names=[name])

    def make(path: Path) -> None:
        with archive.working_folder() as work:
            tree = work / "tree"
            (tree / "tmp").mkdir(parents=True)
            (tree / "tmp").chmod(0o1777)
            shutil.copy(binary, tree / "manager")
            archive.write_tree(tree, settings, path)

    return archive.kept(f"image-kuberay-operator-{archive.key(settings, binary.parent.name)}.tar", make)


def _install(tree: Path) -> None:
    """pip in the tree, which sees the network as this machine does while it runs."""
    lent = {Path("/etc/resolv.conf"): "etc/resolv.conf", Path(_CERTIFICATES): "tmp/certificates.crt"}
    own = {to: (tree / to).read_bytes() for to in lent.values() if (tree / to).exists()}
    for source, to in lent.items():
        if source.exists():
            shutil.copy(source, tree / to)
    told = ["--no-cache-dir", "--disable-pip-version-check", "--break-system-packages", "--root-user-action=ignore"]
    told += ["--ignore-installed"]  # Debian's own packages cannot be uninstalled; those in /usr/local come first
    _chroot(tree, "pip", "install", "--quiet", *told, f"ray[default,serve]=={RAY}", *_ALSO)
    for to in lent.values():
        (tree / to).unlink(missing_ok=True)
        if to in own:
            (tree / to).write_bytes(own[to])


def _chroot(tree: Path, *command: str) -> None:
    passed = {
        name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") or name.startswith("PIP_")
    }
    passed.pop("PIP_FIND_LINKS", None)  # a folder of this machine
    environment = {
        **passed,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PIP_CERT": "/tmp/certificates.crt",
        "LANG": "C.UTF-8",
    }
    done = subprocess.run(["chroot", tree, *command], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RayImageFailed(f"{' '.join(command[:2])}: {(done.stdout + done.stderr)[-2000:]}")
