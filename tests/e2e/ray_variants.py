"""Ray's image in the shapes that people give theirs: other Pythons, environments and variables, upon the one layer with Ray.

Each shape is an image with an environment of its own (PATH, PYTHONPATH), as its Dockerfile would set it. What they add to
Ray's image is folders of a few megabytes below /opt, so Ray lies in the workers once:

    /opt/conda        as conda lays Python out: a copy of Debian's that finds its prefix by where it lies, without its
                      sitecustomize. It is not conda's build, which is not to be had from package registries (so its packages
                      lie in dist-packages, a name that is compiled into it); what an injected runtime meets is the same: a
                      prefix of its own that is no virtual environment, user site-packages allowed, nothing of /usr on the path
    /opt/venv         a plain virtual environment, /opt/venv-system one with system site packages
    /opt/app          a module for ENV PYTHONPATH, /opt/custom a sitecustomize for it
    /opt/own          as venv-system, with gismo-cxl of this tree; /opt/skew the same built for another store format
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from e2e import archive, gismo_image, ray_images

_RECIPE = 1
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "gismo_core", "gismo_kube", "operator", "deviceplugin")
_FORMAT = re.compile(r"^(#define FMT_VERSION )(\d+)u$", re.MULTILINE)
OTHER_FORMAT = 1000  # of no release ever
WHEEL = "/opt/wheels/tiny_thing-1.0-py3-none-any.whl"
CONDA, VENV, VENV_SYSTEM, PYTHONPATH, SITECUSTOMIZE, OWN, SKEW = (
    f"gismo-e2e/ray-{name}:{ray_images.RAY}"
    for name in ("conda", "venv", "venv-system", "pythonpath", "sitecustomize", "own", "skew")
)
_DEBIAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class VariantFailed(RuntimeError):
    """One cannot be made; the message has the end of what was said."""


def environments() -> Path:
    """The archive of those without Gismo. Ray's image has to be loaded before it."""
    images = [
        _image(CONDA, bin_of="/opt/conda"),
        _image(VENV, bin_of="/opt/venv"),
        _image(VENV_SYSTEM, bin_of="/opt/venv-system"),
        ray_images.settings_of(PYTHONPATH, "PYTHONPATH=/opt/app"),
        ray_images.settings_of(SITECUSTOMIZE, "PYTHONPATH=/opt/custom"),
    ]

    def fill(tree: Path) -> None:
        _conda(tree)
        _venv(tree, "/opt/venv")
        _see_ray(tree / "opt/venv")
        _venv(tree, "/opt/venv-system", "--system-site-packages")
        (tree / "opt/app").mkdir()
        (tree / "opt/app/app_of_image.py").write_text("MARK = 'app'\n")
        (tree / "opt/custom").mkdir()
        (tree / "opt/custom/sitecustomize.py").write_text("MARK = 'custom'\n")
        _tiny_wheel(tree / WHEEL.lstrip("/"))

    return _kept("environments", images, fill)


def own_gismo() -> Path:
    """The archive of those with gismo-cxl of their own; made anew with each change of it. Ray's image has to be loaded before it."""
    images = [_image(OWN, bin_of="/opt/own"), _image(SKEW, bin_of="/opt/skew")]

    def fill(tree: Path) -> None:
        for folder, store_format in (("/opt/own", None), ("/opt/skew", OTHER_FORMAT)):
            _venv(tree, folder, "--system-site-packages")
            with zipfile.ZipFile(_wheel(tree.parent, store_format)) as wheel:
                wheel.extractall(_site_packages(tree / folder.lstrip("/")))

    return _kept("own", images, fill, gismo_image.tag())


def _kept(name: str, images: list[archive.Settings], fill: Callable[[Path], None], *also: str) -> Path:
    base = ray_images.ray()

    def make(path: Path) -> None:
        with archive.working_folder() as work:
            tree, layer = work / "tree", work / "layer.tar"
            archive.unpack(ray_images.tree_below(), tree)
            fill(tree)
            archive.pack(tree, layer, "./opt")
            archive.write_upon(base, layer, images, path)

    return archive.kept(f"image-ray-{name}-{archive.key(images, base.name, _RECIPE, Path(__file__), *also)}.tar", make)


def _image(name: str, bin_of: str) -> archive.Settings:
    return ray_images.settings_of(name, f"PATH={bin_of}/bin:{_DEBIAN_PATH}")


def _conda(tree: Path) -> None:
    prefix = tree / "opt/conda"
    (python,) = (tree / "usr/bin").glob("python3.[0-9]*[0-9]")
    library = prefix / "lib" / python.name
    shutil.copytree(tree / "usr/lib" / python.name, library, symlinks=True)
    for debian in ("sitecustomize.py", "EXTERNALLY-MANAGED"):
        (library / debian).unlink()
    (prefix / "bin").mkdir()
    shutil.copy(python, prefix / "bin" / python.name)
    for name in ("python", "python3"):
        (prefix / "bin" / name).symlink_to(python.name)
    _see_ray(prefix)
    told = "import site, sys; print(sys.prefix, sys.base_prefix, site.ENABLE_USER_SITE, [one for one in sys.path if '/usr' in one])"
    said = _run("chroot", str(tree), "/opt/conda/bin/python3", "-c", told).strip()
    if said != "/opt/conda /opt/conda True []":
        raise VariantFailed(f"the copy of Debian's Python is not as conda's: {said}")


def _venv(tree: Path, folder: str, *options: str) -> None:
    _run("chroot", str(tree), "python3", "-m", "venv", "--without-pip", *options, folder)


def _site_packages(prefix: Path) -> Path:
    (python,) = (prefix / "lib").glob("python3.*")
    return python / "site-packages"


def _see_ray(prefix: Path) -> None:
    """Ray and what it needs in this environment's own site-packages: by a link, since one copy of it is enough."""
    own = _site_packages(prefix)
    if own.is_dir():
        own.rmdir()
    for name in ("site-packages", "dist-packages"):
        own.with_name(name).symlink_to(f"/usr/local/lib/{own.parent.name}/dist-packages")
    ray = prefix / "bin/ray"
    ray.write_text("#!/usr/bin/env python3\nfrom ray.scripts.scripts import main\nmain()\n")
    ray.chmod(0o755)


def _wheel(work: Path, store_format: int | None) -> Path:
    """gismo-cxl of this tree, or built for another store format."""
    source = work / f"source-{store_format}"
    listed = _run("git", "-C", str(gismo_image.ROOT), "ls-files", "-co", "--exclude-standard", "--", *_SOURCES)
    for name in listed.splitlines():
        if (gismo_image.ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(gismo_image.ROOT / name, source / name)
    if store_format is not None:
        header = source / "gismo_core/native/format.h"
        text, count = _FORMAT.subn(rf"\g<1>{store_format}u", header.read_text())
        if count != 1:
            raise VariantFailed(f"{header.name} has no line {_FORMAT.pattern}")
        header.write_text(text)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "wheel"]
    _run(*pip, "--no-deps", "--no-build-isolation", f"--wheel-dir={source}/dist", str(source))
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


def _tiny_wheel(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as wheel:
        info = "tiny_thing-1.0.dist-info"
        wheel.writestr("tiny_thing.py", "MARK = 'tiny'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VariantFailed(f"{' '.join(command[:4])}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
