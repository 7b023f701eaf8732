"""Which containers hold a share and run Ray without Gismo, as the node's /proc shows: docs/kubernetes.md, Ray without Gismo.

Dear things are done once: a process is looked at until it is found well, and what it maps is read only until then.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gismo_deviceplugin.kubelet.pod_resources import Held
from gismo_deviceplugin.kubelet.shares import RUNTIME_FOLDER, SHARE_VARIABLE, Injection, Tenant, store_of

NOT_LOADED = "NotLoaded"
NOT_OPENED = "NotOpened"
LOOK_S = 10.0
PATIENCE_S = 20.0  # importing Ray takes seconds, and what loads Gismo runs after that
_RAY = b"/_raylet.so"
_GISMO = b"/libgismo.so"
_WORKER = b"ray::"  # the title that Ray gives its workers, and these two, which open no store
_NO_WORKERS = (b"ray::DashboardAgent", b"ray::RuntimeEnvAgent")
_PATH_CHARACTERS = 200
_PROC = Path("/proc")
_INIT = "1"


@dataclass(frozen=True, slots=True)
class Unloaded:
    """A container that keeps nothing in the store that it has a share of."""

    held: Held
    reason: str
    ray: str  # where one of its processes has its Ray: by that the environment is known, and nothing that is secret


@dataclass(slots=True)
class _Process:
    pid: str
    started: str  # with the pid: of no other process of this boot
    namespace: str  # its mount namespace, which is its container's alone
    seen_since: float
    share: str = ""
    ray: str = ""
    is_well: bool = False
    wrong: str = ""
    wrong_since: float = 0.0


@dataclass(slots=True)
class _Known:
    processes: dict[tuple[str, str], _Process] = field(default_factory=dict)
    # What was said of a container is said on while it is so: which of its workers is looked at first must not change it.
    said: dict[str, Unloaded] = field(default_factory=dict)  # by share


class Looker:
    """At the processes of one node. Made anew it knows nothing, and is as patient as at first."""

    def __init__(self, proc: Path = _PROC, clock: Callable[[], float] = time.monotonic) -> None:
        self._proc = proc
        self._clock = clock
        self._known = _Known()

    def look(self, held: Iterable[Held]) -> tuple[Unloaded, ...]:
        """Of the containers that hold these shares. Needs the node's own /proc, and may look into every process."""
        holders = {one.share: one for one in held}
        if not holders:
            self._known = _Known()
            return ()
        before = self._known.processes
        found: dict[tuple[str, str], _Process] = {}
        now = self._clock()
        for entry in os.scandir(self._proc):
            if entry.name.isdecimal():
                with contextlib.suppress(OSError, IndexError):  # it has ended
                    one = self._process(entry.name, now)
                    found[one.pid, one.started] = before.get((one.pid, one.started), one)
                    found[one.pid, one.started].namespace = one.namespace  # runc gives it one when it has begun
        self._known.processes = found
        self._name_shares(found.values(), holders, now)
        troubled: dict[str, list[_Process]] = {}
        for one in found.values():
            if one.share in holders and not one.is_well:
                with contextlib.suppress(OSError):
                    self._judge(one, now)
                    if one.wrong and now - one.wrong_since >= PATIENCE_S:
                        troubled.setdefault(one.share, []).append(one)
        said = {}
        for share, processes in troubled.items():
            worst = min(processes, key=lambda one: (one.wrong != NOT_LOADED, int(one.pid)))
            last = self._known.said.get(share)
            if last is not None and (last.held, last.reason) == (holders[share], worst.wrong):
                said[share] = last
            else:
                said[share] = Unloaded(holders[share], worst.wrong, worst.ray)
        self._known.said = said
        return tuple(said[share] for share in sorted(said))

    def _process(self, pid: str, now: float) -> _Process:
        folder = self._proc / pid
        # proc(5): the name in parentheses may hold anything, so fields are counted from its end; the 22nd is the start.
        started = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[19]
        return _Process(pid, started, os.readlink(folder / "ns" / "mnt"), now)

    def _name_shares(self, processes: Iterable[_Process], holders: Mapping[str, Held], now: float) -> None:
        """Each process's share: of its own environment, else of its mount namespace's. Some have overwritten their own."""
        processes = list(processes)
        no_container = {one.namespace for one in processes if one.pid in (_INIT, str(os.getpid()))}
        of_namespace: dict[str, str] = {}
        for one in processes:
            if not one.share and now - one.seen_since < PATIENCE_S:  # a container's first process gets it late
                with contextlib.suppress(OSError):
                    one.share = self._environment(one).get(SHARE_VARIABLE, "")
            if one.share in holders and one.namespace not in no_container:
                of_namespace[one.namespace] = one.share
        for one in processes:
            if one.namespace in of_namespace:
                one.share = of_namespace[one.namespace]

    def _judge(self, one: _Process, now: float) -> None:
        maps = (self._proc / one.pid / "maps").read_bytes()
        wrong = ""
        if _RAY in maps:
            one.ray = _folder_of_ray(maps)
            if _GISMO not in maps:
                wrong = NOT_LOADED
            elif f"/{store_of(one.share)}".encode() in maps:
                one.is_well = True
            elif self._is_worker(one):
                wrong = NOT_OPENED
            else:  # one of Ray's own, or a driver that is not connected yet, or a worker before it has its title
                one.is_well = now - one.seen_since >= PATIENCE_S
        if wrong and self._is_as_wished(one):
            one.is_well = True
        elif wrong != one.wrong:
            one.wrong, one.wrong_since = wrong, now

    def _is_worker(self, one: _Process) -> bool:
        title = (self._proc / one.pid / "cmdline").read_bytes().partition(b"\0")[0].strip()
        return title.startswith(_WORKER) and title not in _NO_WORKERS

    def _is_as_wished(self, one: _Process) -> bool:
        """Its user has switched Gismo off, or given it another store."""
        environment = self._environment(one)
        store = environment.get("GISMO_STORE")
        return environment.get("GISMO_DISABLE", "") not in ("", "0") or (
            store is not None and not store.endswith(store_of(one.share))
        )

    def _environment(self, one: _Process) -> dict[str, str]:
        """As it was started with; none of it where Ray wrote a title over it."""
        entries = (self._proc / one.pid / "environ").read_text(errors="replace").split("\0")
        return {name: value for name, is_set, value in (entry.partition("=") for entry in entries) if is_set}


def _folder_of_ray(maps: bytes) -> str:
    line = next(line for line in maps.splitlines() if _RAY in line)
    path = line.split(maxsplit=5)[5].partition(_RAY)[0].decode("ascii", errors="replace")
    return path if path.isprintable() and len(path) <= _PATH_CHARACTERS else "a folder of a strange name"


def message(tenant: Tenant, one: Unloaded) -> str:
    """What is wrong with a container, and what to do."""
    who = f"container {one.held.container} of pod {one.held}"
    if one.reason == NOT_OPENED:
        return (
            f"{who} has gismo_core and does not open the store of {tenant.resource}: the image's own gismo_core is of another store "
            f"format, or does not know the Ray in {one.ray}. The pod's log says which, and so does `gismo ray check` in it"
        )
    what = f"{who} runs Ray (of {one.ray}) without gismo_core, so its objects are not in the store"
    if tenant.injection is Injection.USER_SITE:
        return (
            f"{what}. A Python that reads no user site, as in a plain virtual environment, wants `runtimeInjection: PythonPath` in "
            f"GismoPool {tenant.pool}, and the pod made anew; or gismo-cxl installed in the image"
        )
    if tenant.injection is Injection.PYTHON_PATH:
        return (
            f"{what}. Where the pod was made before `runtimeInjection: PythonPath`, make it anew; where it sets PYTHONPATH itself, let "
            f"{RUNTIME_FOLDER}/boot come first in it; or install gismo-cxl in the image"
        )
    return f"{what}. GismoPool {tenant.pool} has `runtimeInjection: Off`: install gismo-cxl in the image, or take UserSite or PythonPath"
