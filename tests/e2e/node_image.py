"""The image of a cluster's nodes: Debian with systemd, kind's own files, containerd, Kubernetes, and its images in it.

kind's files come from its Go module at the time of building, changed where a machine like ours needs it (see _configure).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import binaries

from e2e import archive, debian, engine, kubernetes_images

_PACKAGES = (
    "ca-certificates", "conntrack", "containernetworking-plugins", "curl", "dbus", "ethtool", "hostname", "iproute2",
    "iptables", "iputils-ping", "jq", "kmod", "mount", "nftables", "procps", "runc", "socat", "systemd",
    "systemd-sysv", "util-linux",
)  # fmt: skip
# What kind's Dockerfile takes out of systemd: nothing of a machine is started in a container.
_UNITS_AWAY = (
    "usr/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
    "usr/lib/systemd/system/multi-user.target.wants/*",
    "etc/systemd/system/*.wants/*",
    "usr/lib/systemd/system/local-fs.target.wants/*",
    "usr/lib/systemd/system/sockets.target.wants/*udev*",
    "usr/lib/systemd/system/sockets.target.wants/*initctl*",
    "usr/lib/systemd/system/basic.target.wants/*",
)
_SERVICES = ("containerd", "kubelet", "undo-mount-hacks")
_CNI = ("host-local", "loopback", "portmap", "ptp")
_WRAPPER = "/usr/local/sbin/runc-less"
# Limits above the machine's own and scores below zero need CAP_SYS_RESOURCE; without them systemd sets none.
_CONTAINERD_DROP_IN = """\
[Service]
LimitNPROC=
LimitCORE=
LimitNOFILE=
TasksMax=
OOMScoreAdjust=
"""
_STORAGE = """\
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
"""
_IMPORTER_CONFIG = """\
version = 3
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", \
"io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
"""
_READY_S = 30.0


class NodeImageFailed(RuntimeError):
    """The image could not be made."""


def ensure() -> str:
    """The name of the image, which the engine has afterwards."""
    files = binaries.module(binaries.KIND_MODULE, f"v{binaries.KIND}") / "images/base/files"
    pause = _pause_name(files)
    images = kubernetes_images.all_of_them(pause)
    base = debian.tree("node", _PACKAGES)
    programs = {
        "usr/local/bin": ("containerd", "ctr", "containerd-shim-runc-v2"),
        "usr/bin": ("kubelet", "kubeadm", "kubectl"),
    }
    built = {folder: [binaries.ensure(name) for name in names] for folder, names in programs.items()}
    parts = [path.parent.name for paths in built.values() for path in paths]
    key = archive.key(Path(__file__), engine.RUNC_WRAPPER, base.name, parts, [image.name for image in images])
    name = f"gismo-e2e/node:v{binaries.KUBERNETES}-{key}"

    def make(path: Path) -> None:
        with archive.working_folder() as work:
            tree = work / "tree"
            archive.unpack(base, tree)
            for folder, paths in built.items():
                for program in paths:
                    shutil.copy(program, tree / folder / program.name)
            _configure(tree, files)
            _import(tree, images)
            settings = archive.Settings(
                ["/usr/local/bin/entrypoint", "/sbin/init"],
                ["container=docker"],
                stop_signal="SIGRTMIN+3",
                names=[name],
            )
            archive.write_tree(tree, settings, path)

    engine.load(archive.kept(f"image-node-{key}.tar", make), name)
    return name


def _pause_name(files: Path) -> str:
    """The sandbox image that kind's containerd asks for."""
    for line in (files / "etc/containerd/config.toml").read_text().splitlines():
        if line.strip().startswith("sandbox_image"):
            return line.partition('"')[2].partition('"')[0]
    raise NodeImageFailed("kind's containerd configuration names no sandbox image")


def _configure(tree: Path, files: Path) -> None:
    for pattern in _UNITS_AWAY:
        for unit in tree.glob(pattern):
            unit.unlink()
    _copy_kind(files, tree)
    config = tree / "etc/containerd/config.toml"
    text = config.read_text()
    for old, new in (
        ("restrict_oom_score_adj = false", "restrict_oom_score_adj = true"),
        ("SystemdCgroup = true", f'SystemdCgroup = true\n    BinaryName = "{_WRAPPER}"'),
    ):
        if old not in text:
            raise NodeImageFailed(f"kind's containerd configuration has no line {old!r}")
        text = text.replace(old, new)
    config.write_text(text)
    wanted = tree / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    for service in _SERVICES:
        (wanted / f"{service}.service").symlink_to(f"/etc/systemd/system/{service}.service")
    # It would register interpreters with the kernel, which all containers share.
    (tree / "etc/systemd/system/systemd-binfmt.service").symlink_to("/dev/null")
    with (tree / "etc/systemd/journald.conf").open("a") as journald:
        journald.write("[Journal]\nReadKMsg=no\n")
    _write(tree / _WRAPPER.lstrip("/"), engine.RUNC_WRAPPER, 0o755)
    _write(tree / "etc/systemd/system/containerd.service.d/10-limits.conf", _CONTAINERD_DROP_IN)
    _write(tree / "kind/version", f"v{binaries.KUBERNETES}")
    _write(tree / "kind/manifests/default-storage.yaml", _STORAGE)
    (tree / "etc/kubernetes/manifests").mkdir(parents=True)
    (tree / "opt/cni/bin").mkdir(parents=True)
    for plugin in _CNI:
        shutil.copy(tree / "usr/lib/cni" / plugin, tree / "opt/cni/bin" / plugin)
    specified = subprocess.run(
        ["jq", 'del(.process.rlimits) | .hooks.createContainer = [{path: "/kind/bin/mount-product-files.sh"}]'],
        input=subprocess.run([binaries.ensure("ctr"), "oci", "spec"], capture_output=True, check=True).stdout,
        capture_output=True,
        check=True,
    )
    (tree / "etc/containerd/cri-base.json").write_bytes(specified.stdout)


def _copy_kind(files: Path, tree: Path) -> None:
    """kind's files, scripts executable (a module's files are all 0444)."""
    for source in sorted(files.rglob("*")):
        below = source.relative_to(files)
        if source.is_file() and below.parts[0] != "LICENSES":
            executable = source.read_bytes().startswith(b"#!")
            _write(tree / below, source.read_text(), 0o755 if executable else 0o644)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _import(tree: Path, images: list[Path]) -> None:
    """Put images into the containerd of the tree, so that no node has to fetch them."""
    with _containerd(tree / "var/lib/containerd") as socket:
        for image in images:
            command = [str(binaries.ensure("ctr")), f"--address={socket}", "--namespace=k8s.io", "images", "import"]
            command += [
                "--label=io.cri-containerd.pinned=pinned",
                "--all-platforms",
                "--no-unpack",
                "--digests",
                str(image),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise NodeImageFailed(f"ctr images import {image.name}: {done.stderr[-2000:]}")


@contextmanager
def _containerd(root: Path) -> Iterator[Path]:
    """A containerd that only keeps images, with its data in root; its socket."""
    with tempfile.TemporaryDirectory(prefix="gismo-e2e-") as text:
        state = Path(text)
        (state / "config.toml").write_text(_IMPORTER_CONFIG)
        socket = state / "containerd.sock"
        command = [str(binaries.ensure("containerd")), f"--config={state / 'config.toml'}", f"--root={root}"]
        command += [f"--state={state / 'state'}", f"--address={socket}"]
        with (state / "log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            end = time.monotonic() + _READY_S
            while not socket.exists():
                if process.poll() is not None or time.monotonic() > end:
                    raise NodeImageFailed(f"containerd does not start: {(state / 'log').read_text()[-2000:]}")
                time.sleep(0.05)
            yield socket
        finally:
            os.kill(process.pid, signal.SIGTERM)
            process.wait()
