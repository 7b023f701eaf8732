"""gismo doctor: can this machine do it well, and what to change."""

from __future__ import annotations

import os
import platform
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from gismo_core import _native
from gismo_core.cli import exits
from gismo_core.cli.options import json_option, open_to_look, state_dir_candidates
from gismo_core.cli.output import show_json, size_text
from gismo_core.cli.pool import litmus_text
from gismo_core.errors import GismoError, InvalidArgument
from gismo_core.records import LitmusOutcome
from gismo_core.store import probe

_CPU_BITS = ("clwb", "clflushopt", "avx512f", "vpclmulqdq", "sse4.2", "movdir64b")
_VARIABLES = ("GISMO_STORE", "GISMO_STATE_DIR", "GISMO_HOST_ID", "GISMO_NODE_MARKER", "GISMO_DISABLE", "GISMO_RAY_DATA")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `status` is ok, note (worth knowing), warn (works worse) or fail (does not work)."""

    name: str
    status: str
    found: str
    advice: str = ""


@click.command("doctor", epilog=exits.HELP)
@click.argument("store", metavar="[STORE]", envvar="GISMO_STORE", required=False)
@json_option
def doctor_command(store: str | None, as_json: bool) -> int:
    """Check this machine (and STORE), and say what to change. Ends with 1 if something stops gismo from working."""
    checks = list(examine(store))
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        show_json({"checks": checks, "ok": not failed})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            colour = {"ok": "green", "warn": "yellow", "fail": "red"}.get(check.status)
            click.echo(f"{click.style(f'{check.status:4}', fg=colour)}  {check.name:<{width}}  {check.found}")
            if check.advice:
                click.echo(f"      {'':<{width}}  -> {check.advice}")
    return exits.ERROR if failed else exits.OK


def examine(store: str | None) -> Iterator[Check]:
    """All checks, in the order in which a cause comes before its effects."""
    yield _platform()
    yield from _library()
    yield from _dax()
    yield from _shared_memory()
    yield _huge_pages()
    yield from _limits()
    yield _inotify()
    yield _state_dir()
    yield from _environment()
    if store is not None:
        found = _store(store)
        yield found
        if found.status == "ok":
            yield from _litmus(store)


def _platform() -> Check:
    system, machine = platform.system(), platform.machine()
    found = f"{system} {platform.release()} on {machine}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    if system != "Linux" or machine != "x86_64":
        return Check("platform", "fail", found, "gismo works on 64-bit Linux on x86-64 only")
    return Check("platform", "ok", found)


def _library() -> Iterator[Check]:
    try:
        library = _native.load()
    except GismoError as error:
        yield Check("libgismo.so", "fail", str(error), "install gismo-cxl, or run `make setup` in a checkout")
        return
    yield Check("libgismo.so", "ok", f"{library.version} at {library.path}")
    bits = library.slow.cpu_features()
    have = [name for bit, name in enumerate(_CPU_BITS) if bits >> bit & 1]
    found = ", ".join(have) or "none of " + ", ".join(_CPU_BITS)
    if "clflushopt" not in have:
        yield Check("flush instructions", "fail", found, "a processor with clflushopt is needed (since 2015)")
    elif "clwb" not in have:
        advice = "clflushopt is used: correct, but a flushed line is read from memory again"
        yield Check("flush instructions", "note", found, advice)
    else:
        yield Check("flush instructions", "ok", found)


def _dax() -> Iterator[Check]:
    devices = sorted(Path("/sys/bus/dax/devices").glob("dax*"))
    if not devices:
        advice = "none is needed for file:PATH; for CXL memory see `cxl list` and `daxctl list` (mode devdax)"
        yield Check("DAX devices", "note", "none", advice)
    for device in devices:
        size = _number(device / "size") or 0
        align = _number(device / "align") or 0
        node = Path("/dev") / device.name
        found = f"{size_text(size)}, alignment {size_text(align)}, NUMA node {_text(device / 'target_node') or '?'}"
        driver = (device / "driver").resolve().name if (device / "driver").exists() else "none"
        if driver == "kmem":
            advice = f"it is system memory now; `daxctl reconfigure-device -m devdax {device.name}` gives it back"
            yield Check(f"DAX {device.name}", "warn", found, advice)
        elif not node.exists():
            yield Check(f"DAX {device.name}", "warn", found, f"{node} is missing: enable it, or mount it into the pod")
        elif not os.access(node, os.R_OK | os.W_OK):
            yield Check(f"DAX {device.name}", "warn", found, f"no access to {node}: add a udev rule or a group")
        else:
            yield Check(f"DAX {device.name}", "ok", found)


def _shared_memory() -> Iterator[Check]:
    path = "/dev/shm"
    try:
        status = os.statvfs(path)
    except OSError as error:
        yield Check(path, "warn", str(error), "mount a tmpfs there, or put stores elsewhere")
        return
    size, free = status.f_frsize * status.f_blocks, status.f_frsize * status.f_bavail
    found = f"{size_text(size)}, {size_text(free)} free"
    if size <= 64 * 1024**2:
        advice = "this is a container's default: run it with --shm-size=4g, or mount a larger emptyDir (Memory) there"
        yield Check(path, "warn", found, advice)
    elif not os.access(path, os.W_OK):
        yield Check(path, "warn", found, f"{path} is not writable for this user: chmod 1777 {path}")
    else:
        yield Check(path, "ok", found)


def _huge_pages() -> Check:
    chosen = _text(Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")) or ""
    policy = chosen[chosen.find("[") + 1 : chosen.find("]")] if "[" in chosen else "unknown"
    huge = [line.split()[1] for line in _lines(Path("/proc/mounts")) if _is_huge(line)]
    found = f"shmem_enabled={policy}, huge mounts: {', '.join(huge) or 'none'}"
    if huge or policy in ("always", "force", "within_size"):
        return Check("huge pages", "ok", found)
    advice = (
        "a first read costs 2-3 times as much without; as root: mkdir -p /mnt/gismo && "
        "mount -t tmpfs -o huge=always,mode=1777 tmpfs /mnt/gismo, and format the store there"
    )
    return Check("huge pages", "note", found, advice)


def _is_huge(line: str) -> bool:
    _, _, kind, options = line.split()[:4]
    if kind == "hugetlbfs":
        return True
    return kind == "tmpfs" and any(option in options.split(",") for option in ("huge=always", "huge=within_size"))


def _limits() -> Iterator[Check]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{_limit(soft)} (at most {_limit(hard)})"
    if soft != resource.RLIM_INFINITY and soft < 1024:
        yield Check("open files", "warn", found, "ulimit -n 4096, or LimitNOFILE= in the unit: a process holds a few")
    else:
        yield Check("open files", "ok", found)
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    # Device-DAX and tmpfs are not locked by gismo, so a small limit harms only who pins them for RDMA.
    yield Check("locked memory", "ok", f"{_limit(soft, size=True)} (not needed by gismo itself)")
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        advice = "a store is mapped whole: raise it (ulimit -v unlimited) above the store's size"
        yield Check("address space", "warn", _limit(soft, size=True), advice)


def _inotify() -> Check:
    instances = _number(Path("/proc/sys/fs/inotify/max_user_instances"))
    watches = _number(Path("/proc/sys/fs/inotify/max_user_watches"))
    if instances is None or watches is None:
        return Check("inotify", "note", "not readable here")
    found = f"{instances} instances, {watches} watches per user"
    if instances < 512 or watches < 65536:
        advice = "enough for gismo alone; kind clusters want sysctl fs.inotify.max_user_instances=512 max_user_watches=524288"
        return Check("inotify", "note", found, advice)
    return Check("inotify", "ok", found)


def _state_dir() -> Check:
    problems = []
    for candidate, tmpfs_only in state_dir_candidates():
        existing = candidate
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        kind = _filesystem(existing)
        if tmpfs_only and kind not in ("tmpfs", "ramfs"):
            problems.append(f"{existing} is {kind}")
            continue
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            problems.append(f"{existing}: {error.strerror}")
            continue
        found = str(candidate) if candidate.exists() else f"{candidate} (will be made)"
        if kind not in ("tmpfs", "ramfs"):
            advice = "it should be a tmpfs, which a reboot empties: set GISMO_STATE_DIR to a folder on one"
            return Check("state directory", "warn", f"{found} on {kind}", advice)
        return Check("state directory", "ok", found)
    advice = "set GISMO_STATE_DIR to a writable folder on tmpfs that all processes of this host share"
    return Check("state directory", "fail", "; ".join(problems), advice)


def _environment() -> Iterator[Check]:
    for name in sorted(os.environ):
        if name.startswith("GISMO_"):
            value = f"{name}={os.environ[name]}"
            if name in _VARIABLES:
                yield Check("environment", "ok", value)
            else:
                yield Check("environment", "warn", value, "no part of gismo reads it: is it misspelt?")


def _store(path: str) -> Check:
    try:
        info = probe(path)
    except InvalidArgument as error:
        return Check("store", "fail", str(error))
    except (GismoError, OSError) as error:
        return Check("store", "fail", str(error) if path in str(error) else f"{path}: {error}")
    return Check("store", "ok", f"{path}: {info.store_uuid}, {size_text(info.data_bytes)} for objects")


def _litmus(path: str) -> Iterator[Check]:
    """What `gismo litmus` found on the hosts of the store."""
    try:
        with open_to_look(path) as opened:
            info, hosts = opened.info, opened.hosts()
    except (GismoError, OSError) as error:
        yield Check("litmus", "note", f"cannot be looked at: {error}")
        return
    tested = [host for host in hosts if host.litmus is not None]
    if not tested and info.is_dax:
        advice = (
            f"run `gismo litmus {path}` on two hosts at the same time: does the hardware do what gismo assumes of it?"
        )
        yield Check("litmus", "note", "not run", advice)
    elif not tested:
        yield Check("litmus", "ok", "not run; nothing to find out in a file, which one machine has")
    for host in tested:
        outcome = host.litmus.outcome if host.litmus is not None else LitmusOutcome.NOT_MEANINGFUL
        if outcome == LitmusOutcome.VIOLATED:
            advice = "objects can be damaged, or seen damaged, on this hardware: do not use it for several hosts"
            yield Check("litmus", "fail", litmus_text(host), advice)
        elif outcome == LitmusOutcome.NOT_MEANINGFUL and info.is_dax:
            yield Check(
                "litmus", "note", litmus_text(host), f"run `gismo litmus {path}` on two machines at the same time"
            )
        else:
            yield Check("litmus", "ok", litmus_text(host))


def _filesystem(path: Path) -> str:
    """Type of the file system that holds a path, from the longest mount point above it."""
    target = str(path.resolve())
    best, kind = "", "unknown"
    for line in _lines(Path("/proc/mounts")):
        _, mount, one_kind = line.split()[:3]
        inside = target == mount or target.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, one_kind
    return kind


def _limit(value: int, size: bool = False) -> str:
    if value == resource.RLIM_INFINITY:
        return "unlimited"
    return size_text(value) if size else str(value)


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    try:
        return int(_text(path) or "", 0)
    except ValueError:
        return None


def _lines(path: Path) -> list[str]:
    return [line for line in (_text(path) or "").splitlines() if len(line.split()) >= 4]
