"""The container engine that the cluster's nodes run in: the one that answers, else a dockerd of our own.

What it starts keeps its data in the cache (so that images stay) and is found again by its pid file. Where the machine
withholds CAP_SYS_RESOURCE, as some virtual ones do, privileged containers could not start: then every container goes
through a runtime that leaves that capability away.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import binaries

_EXEC_ROOT = Path("/run/gismo-e2e-docker")
_SOCKET = Path("/var/run/docker.sock")
_EMPTY_AFTERWARDS = ("/run/docker/plugins", "/run/docker", "/run/containerd/s", "/run/containerd")
# dockerd sets the first, every kubelet the others, for all of the machine.
_SETTINGS = (
    "net/ipv4/ip_forward", "kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "vm/panic_on_oom",
)  # fmt: skip
_CAP_SYS_RESOURCE = 24
_READY_S = 60.0
_END_S = 60.0
# Debian package of each program that is needed here and in the other modules.
_PACKAGES = {
    "docker": "docker.io",
    "dockerd": "docker.io",
    "runc": "runc",
    "iptables-save": "iptables",
    "jq": "jq",
    "debootstrap": "debootstrap",
    "gcc": "gcc",
}

# runc with one capability less. containerd and dockerd call it with a bundle, or with a process file for exec.
RUNC_WRAPPER = """\
#!/bin/bash
# Takes CAP_SYS_RESOURCE, and limits that need it, out of what runc is told: this machine does not have it to give.
set -euo pipefail
command='' bundle=. process='' previous=''
for argument in "$@"; do
    case $previous in
        --bundle|-b) bundle=$argument ;;
        --process|-p) process=$argument ;;
    esac
    case $argument in
        --bundle=*) bundle=${argument#*=} ;;
        --process=*) process=${argument#*=} ;;
        create|run|exec|restore) [[ $command ]] || command=$argument ;;
    esac
    previous=$argument
done
strip='del(.rlimits) | if .capabilities then .capabilities |= map_values(map(select(. != "CAP_SYS_RESOURCE"))) else . end'
without() {
    jq "$2" "$1" >"$1.less"
    cat "$1.less" >"$1"
    rm -f "$1.less"
}
case $command in
    create|run) without "$bundle/config.json" ".process |= ($strip)" ;;
    exec) if [[ $process ]]; then without "$process" "$strip"; fi ;;
esac
exec runc "$@"
"""


class EngineFailed(RuntimeError):
    """The engine could not be brought up, or a command of it failed."""


def folder() -> Path:
    """Where its data, log and state are."""
    return binaries.cache() / "engine"


def docker(*arguments: str, stdin: bytes | None = None) -> str:
    """One docker command; its output."""
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise EngineFailed(f"docker {' '.join(arguments[:3])}: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout.decode()


def answers() -> bool:
    """Is there an engine?"""
    asked = ["docker", "version", "--format", "{{.Server.Version}}"]
    return shutil.which("docker") is not None and not subprocess.run(asked, capture_output=True, check=False).returncode


def load(archive: Path, name: str) -> None:
    """The engine has an image afterwards; loaded from its archive if it has not."""
    asked = ["docker", "image", "inspect", "--format", "{{.Id}}", name]
    if subprocess.run(asked, capture_output=True, check=False).returncode:
        print(f"loading {archive.name}", file=sys.stderr, flush=True)
        docker("load", f"--input={archive}")


def bring_up() -> None:
    """An engine answers afterwards."""
    if answers():
        return
    if missing := _missing():
        _install(missing)
        if answers():
            return  # a package that starts its service
    if os.geteuid():
        raise EngineFailed("no container engine answers, and only root can start one: start yours, or be root")
    home = folder()
    home.mkdir(parents=True, exist_ok=True)
    _remember(home)
    command = [
        "dockerd", f"--data-root={home / 'data'}", f"--exec-root={_EXEC_ROOT}", f"--pidfile={_pid_file()}",
        f"--host=unix://{_SOCKET}", "--storage-driver=overlay2",
        "--bridge=none",  # kind makes a network of its own
    ]  # fmt: skip
    if not _has_sys_resource():
        wrapper = home / "runc-less"
        wrapper.write_text(RUNC_WRAPPER)
        wrapper.chmod(0o755)
        command += [f"--add-runtime=less={wrapper}", "--default-runtime=less"]
    print("starting dockerd", file=sys.stderr, flush=True)
    _pid_file().unlink(missing_ok=True)  # of one that was killed: its number may be another process's by now
    with (home / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    end = time.monotonic() + _READY_S
    while not answers():
        if process.poll() is not None or time.monotonic() > end:
            raise EngineFailed(f"dockerd does not answer: {(home / 'dockerd.log').read_text()[-2000:]}")
        time.sleep(0.2)


def _missing() -> list[str]:
    """Debian packages of the programs that are not there."""
    return sorted({package for program, package in _PACKAGES.items() if not shutil.which(program)})


def _install(packages: list[str]) -> None:
    """On Debian as root; elsewhere EngineFailed says what to install."""
    if os.geteuid() or not shutil.which("apt-get"):
        raise EngineFailed(f"missing; install with: apt-get install --no-install-recommends {' '.join(packages)}")
    print(f"installing {' '.join(packages)}", file=sys.stderr, flush=True)
    # RUNLEVEL: where services are started by scripts, none is; the engine is started here, and stopped again.
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (
        ["apt-get", "-qq", "update"],
        ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise EngineFailed(f"{' '.join(command)}: {done.stdout[-2000:]}")
    if left := _missing():
        raise EngineFailed(f"installed, and their programs are not found: {', '.join(left)}")


def take_down() -> None:
    """Stop what bring_up() started, if it did, and put the host's network back."""
    pid = _own_pid()
    if pid is None:
        return
    print("stopping dockerd", file=sys.stderr, flush=True)
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + _END_S
    while _own_pid() is not None:
        if time.monotonic() > end:
            raise EngineFailed(f"dockerd (pid {pid}) does not end")
        time.sleep(0.1)
    _put_back(folder())
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if (point := line.split()[4]).startswith(f"{_EXEC_ROOT}/"):  # dockerd leaves its own network namespace
            subprocess.run(["umount", point], check=True)
    shutil.rmtree(_EXEC_ROOT, ignore_errors=True)
    for left in _EMPTY_AFTERWARDS:
        try:
            Path(left).rmdir()
        except OSError:  # another's, or not there
            pass


def _pid_file() -> Path:
    return folder() / "dockerd.pid"


def _own_pid() -> int | None:
    """Of the dockerd that was started here and lives."""
    try:
        pid = int(_pid_file().read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return None
    except (OSError, ValueError):
        return None
    return pid if f"--data-root={folder() / 'data'}".encode() in command else None


def _has_sys_resource() -> bool:
    found = re.search(r"^CapBnd:\s+([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> _CAP_SYS_RESOURCE & 1)


def _remember(home: Path) -> None:
    """What dockerd and the kubelets in it change of this machine and do not put back themselves."""
    settings = {
        name: Path("/proc/sys", name).read_text().strip() for name in _SETTINGS if Path("/proc/sys", name).exists()
    }
    before = {"settings": settings, "rules": _rules(), "cgroups": [str(path) for path in _cgroups()]}
    (home / "before.json").write_text(json.dumps(before))


def _put_back(home: Path) -> None:
    before = json.loads((home / "before.json").read_text())
    kept = "".join(f"{line}\n" for line in _rules().splitlines() if not re.search(r"\bDOCKER\b|DOCKER-", line))
    if ":FORWARD DROP" not in before["rules"]:
        kept = kept.replace(":FORWARD DROP", ":FORWARD ACCEPT")
    subprocess.run(["iptables-restore"], input=kept, text=True, check=True)
    for name, value in before["settings"].items():
        Path("/proc/sys", name).write_text(value)
    for group in _cgroups():
        if str(group) not in before["cgroups"]:
            for folder, _, _ in os.walk(group, topdown=False):
                os.rmdir(folder)


def _rules() -> str:
    return subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout


def _cgroups() -> list[Path]:
    """Of dockerd: one, or with cgroup v1 one for each controller."""
    return [path for pattern in ("docker", "*/docker") for path in Path("/sys/fs/cgroup").glob(pattern)]
