"""The image of operator and agents, from the Containerfile, as `make images` builds it; its base is made here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from e2e import archive, debian, engine

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "gismo"
_PACKAGES = ("ca-certificates", "python3", "python3-pip")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_SOURCES = ("Containerfile", "pyproject.toml", "gismo_core", "gismo_kube", "operator", "deviceplugin")
_RECIPE = 1


class GismoImageFailed(RuntimeError):
    """It cannot be built; the message has the end of what was said."""


def tag() -> str:
    """Changes with all that the image is made of."""
    listed = _run("git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "--", *_SOURCES)
    files = [path for path in (ROOT / name for name in listed.splitlines()) if path.is_file()]
    return "e2e-" + archive.key(_base_key(), *(part for path in files for part in (str(path.relative_to(ROOT)), path)))


def ensure() -> Path:
    """Its archive, called REPOSITORY:tag()."""
    name = tag()

    def make(path: Path) -> None:
        environment = {**os.environ, "IMAGE": REPOSITORY, "TAG": name, "BASE": _base(), "PUSH": "", "ENGINE": "docker"}
        # No engine's own builder and no network of its own: pip goes the way that this machine goes.
        environment |= {"DOCKER_BUILDKIT": "0", "BUILD_ARGUMENTS": "--network=host"}
        _run("make", "images", environment=environment)
        engine.docker("save", f"--output={path}", f"{REPOSITORY}:{name}")

    return archive.kept(f"image-gismo-{name}.tar", make)


def _base_key() -> str:
    certificates = _CERTIFICATES.read_bytes() if _CERTIFICATES.exists() else b""
    return archive.key(debian.SUITE, _PACKAGES, certificates, _pip(), _RECIPE)


def _pip() -> list[str]:
    """Where pip finds packages, as on this machine."""
    told = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name in ("PIP_INDEX_URL", "PIP_PROXY")]
    return [*told, f"PIP_CERT={_CERTIFICATES}"]


def _base() -> str:
    """The name of a base image in the engine: Debian's Python, and this machine's way to packages."""
    name = f"gismo-e2e/python:{_base_key()}"
    if engine.docker("images", "--quiet", name).strip():
        return name
    with archive.working_folder() as work:
        tree = work / "tree"
        archive.unpack(debian.tree("python", _PACKAGES), tree)
        if _CERTIFICATES.exists():
            shutil.copy(_CERTIFICATES, tree / _CERTIFICATES.relative_to("/"))
        archive.write_tree(tree, archive.Settings(environment=_pip(), names=[name]), work / "image.tar")
        engine.docker("load", f"--input={work / 'image.tar'}")
    return name


def _run(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GismoImageFailed(f"{' '.join(command[:2])}: {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
