"""Hosts of a pool that fell silent, in its stores: the operator's Suspect and Dead become FENCED and RELEASED (P10 of FORMAT.md).

One agent of the pool does it: that of the Active node with the lowest host id; where nothing comes of it the next one does,
and so on, each NEXT_S later (several at once hurt nothing). For a node that is Suspect it fences the lane, and only if its
heartbeat stands still in the store, too: a kubelet that is down says nothing of the work of its node. For one that is Dead it
has the lane released and tidied up, if that is of the boot that is dead, and its heartbeat stands still: then a wrong word of
a person is found out in time.

This node's own lane is looked at as well: fenced while the node was frozen or cut off, or left by an earlier boot, or an
earlier life of a node that is a container. It is taken back when nobody here uses the store any more. So what an agent
knows of its node is the acknowledgement that the others wait for.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gismo_core
from gismo_core.records import Eviction, HostInfo, HostState
from gismo_deviceplugin.pool.label import State
from gismo_deviceplugin.pool.medium import Unfit
from gismo_deviceplugin.pool.view import NodeView, PoolView

logger = logging.getLogger("gismo.agent")

LOOK_S = 5.0
NEXT_S = 30.0
_TRY_S = 15.0  # a host is silent after ten looks, one a second
_AGAIN_S = 10.0
_IN_PLACE = (HostState.ACTIVE, HostState.FENCED)
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class SilentHost:
    """A node that is not Active, in the stores that are ready here: in how many its lane is ACTIVE, FENCED, or nobody's."""

    node: str
    host_id: int
    boot_id: str
    standing: str
    active: int
    fenced: int
    released: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Store:
    """A store that is ready on this node."""

    namespace: str
    store_uuid: str
    path: Path
    state_dir: Path


def life_began_unix_ns(proc: Path = _PROC) -> int:
    """When the node was started: the machine, or the container that a node of kind is. Needs the node's own /proc."""
    ticks = int((proc / "1/stat").read_text().rpartition(")")[2].split()[19])  # proc(5): starttime, the 22nd field
    began_s = ticks / os.sysconf("SC_CLK_TCK")
    return time.time_ns() - int((time.clock_gettime(time.CLOCK_BOOTTIME) - began_s) * 1e9)


class Lanes:
    """Of one pool, as one node's agent has them. Calls come from one thread at a time."""

    def __init__(
        self,
        boot_id: str,
        clock: Callable[[], float] = time.monotonic,
        life_began_ns: Callable[[], int] = life_began_unix_ns,
    ) -> None:
        self._boot_id = boot_id
        self._clock = clock
        self._life_began_ns = life_began_ns
        self._looks: dict[str, tuple[float, Mapping[int, HostInfo]]] = {}
        self._silent_since: dict[tuple[int, str], float] = {}
        self._evictions: dict[tuple[str, int, str], _Eviction] = {}
        self._kept_out: dict[str, tuple[float, Unfit]] = {}  # of the own lane, by store

    # ---- the own lane ----------------------------------------------------------------------------

    def come_home(self, store: Store, host_id: int) -> None:
        """Takes this node's lane back, if it is fenced or was left by somebody who has ended. Unfit: somebody here still uses it."""
        tried = self._kept_out.get(store.store_uuid)
        if tried is not None and self._clock() - tried[0] < LOOK_S:
            raise tried[1]
        mine = self._hosts(store).get(host_id)
        is_here = (store.state_dir / uuid.UUID(store.store_uuid).hex / "state").exists()
        if mine is None or mine.state not in _IN_PLACE or (mine.state is HostState.ACTIVE and is_here):
            self._kept_out.pop(store.store_uuid, None)
            return
        try:
            self._return(store, host_id, mine, is_here=is_here)
        except Unfit as error:
            self._kept_out[store.store_uuid] = (self._clock(), error)
            raise
        self._kept_out.pop(store.store_uuid, None)
        logger.info("store %s: host id %d is this node's again", store.store_uuid, host_id)

    def _return(self, store: Store, host_id: int, mine: HostInfo, *, is_here: bool) -> None:
        of_this_boot = mine.boot_id == uuid.UUID(self._boot_id)
        restarted = of_this_boot and not is_here and self._life_began_ns() > mine.heartbeat_unix_ns
        self._looks.pop(store.store_uuid, None)
        try:
            gismo_core.open(store.path, host_id=host_id, state_dir=store.state_dir, restarted=restarted).close()
        except (gismo_core.Fenced, gismo_core.HostIdInUse, gismo_core.StoreBusy) as error:
            raise Unfit(
                f"host id {host_id} of this node was fenced in {store.namespace} while the node was silent, and processes of that time "
                f"still have the store open: each of their calls is Fenced; delete their pods ({error})"
                if mine.state is HostState.FENCED
                else f"host id {host_id} of this node is in use in {store.namespace}, and not from the state directory of this node: {error}",
                "Fenced" if mine.state is HostState.FENCED else "HostIdInUse",
            ) from error
        except gismo_core.GismoError as error:
            raise Unfit(f"the store of {store.namespace} cannot be opened: {error}") from error

    # ---- those of others -------------------------------------------------------------------------

    def silent(self, view: PoolView, stores: Mapping[str, Store]) -> tuple[SilentHost, ...]:
        """How far each node is that is not Active; what can be done for it is begun. Empty where another agent has to do it."""
        others = [one for one in view.others if one.standing != "Active" and one.boot_id]
        keys = {(one.host_id, one.standing) for one in others}
        now = self._clock()
        self._silent_since = {key: self._silent_since.get(key, now) for key in keys}
        self._evictions = {key: one for key, one in self._evictions.items() if one.is_alive() or now < one.again_s}
        if view.me.standing != "Active":
            return ()
        before_us = sum(one.standing == "Active" and one.host_id < view.me.host_id for one in view.others)
        due = [one for one in others if now - self._silent_since[one.host_id, one.standing] >= before_us * NEXT_S]
        found = (self._one(view, one, stores, is_second=before_us > 0) for one in due)
        return tuple(sorted((one for one in found if one is not None), key=lambda one: one.host_id))

    def _one(
        self, view: PoolView, node: NodeView, stores: Mapping[str, Store], *, is_second: bool
    ) -> SilentHost | None:
        counts = {"active": 0, "fenced": 0, "released": 0}
        messages = []
        for store in stores.values():
            try:
                lane = self._hosts(store).get(node.host_id)
            except Unfit as error:
                counts["active"] += 1
                messages.append(f"{store.namespace}: {error}")
                continue
            state = lane.state if lane is not None else HostState.FREE
            word = {HostState.ACTIVE: "active", HostState.FENCED: "fenced"}.get(state, "released")
            counts[word] += 1
            if not (state is HostState.ACTIVE or (state is HostState.FENCED and node.standing == "Dead")):
                continue
            running = self._evictions.get((store.store_uuid, node.host_id, node.standing))
            if running is None:
                running = _Eviction(store, view.me.host_id, node, self._clock)
                self._evictions[store.store_uuid, node.host_id, node.standing] = running
                running.start()
            if running.message:
                messages.append(f"{store.namespace}: {running.message}")
        unready = sum(one.state is State.ACTIVE for one in view.ranges) - len(stores)
        if unready:
            messages.append(f"{unready} Gismo namespaces are not ready on {view.me.node}, and were not looked at")
        if is_second and not counts["active"] and not (counts["fenced"] and node.standing == "Dead"):
            return None  # it is as far as it can be, and the first one says so
        return SilentHost(
            node.node,
            node.host_id,
            node.boot_id or "",
            node.standing,
            counts["active"] + unready,
            counts["fenced"],
            counts["released"],
            "; ".join(messages[:3])[:1024],
        )

    def _hosts(self, store: Store) -> Mapping[int, HostInfo]:
        """By host id; not older than LOOK_S."""
        last = self._looks.get(store.store_uuid)
        if last is not None and self._clock() - last[0] < LOOK_S:
            return last[1]
        try:
            with gismo_core.open(store.path, read_only=True) as opened:
                hosts = {one.host_id: one for one in opened.hosts()}
        except gismo_core.GismoError as error:
            raise Unfit(f"the store of {store.namespace} cannot be looked at: {error}") from error
        self._looks[store.store_uuid] = (self._clock(), hosts)
        return hosts


class _FarEnough(Exception):
    """Of a host that is Suspect: it is fenced."""


class _Eviction(threading.Thread):
    """Of one host from one store, as far as it goes now. It holds the store open, as any process of this node, and ends by itself."""

    def __init__(self, store: Store, host_id: int, node: NodeView, clock: Callable[[], float]) -> None:
        super().__init__(name=f"evict {node.node} from {store.namespace}", daemon=True)
        self._store, self._host_id, self._node, self._clock = store, host_id, node, clock
        self.again_s = 0.0
        self.message = ""

    def run(self) -> None:
        """What stands in its way is said in `message`."""
        name = f"{self._node.node} (host id {self._node.host_id})"
        try:
            with gismo_core.open(self._store.path, host_id=self._host_id, state_dir=self._store.state_dir) as opened:
                self._evict(opened)
            logger.info("store %s: %s is out", self._store.store_uuid, name)
        except _FarEnough:
            logger.info("store %s: %s is fenced", self._store.store_uuid, name)
        except gismo_core.NameNotFound:
            self.message = "it has been back since"
        except gismo_core.GismoError as error:
            self.message = str(error)
            logger.info("store %s: %s is not out yet: %s", self._store.store_uuid, name, error)
        finally:
            self.again_s = self._clock() + _AGAIN_S

    def _evict(self, opened: gismo_core.Store) -> None:
        is_dead = self._node.standing == "Dead"
        boot_id = uuid.UUID(self._node.boot_id)
        if is_dead and self._beats(opened):
            raise gismo_core.StoreBusy("it is said to be dead, and its heartbeat goes on: it is not off")

        def fenced(eviction: Eviction) -> None:
            if eviction.state is not HostState.ACTIVE and not is_dead:
                raise _FarEnough

        # Never by force: silence is asked for even where somebody said that it is off.
        opened.evict_host(self._node.host_id, confirmed_off=is_dead, boot_id=boot_id, wait_s=_TRY_S, progress=fenced)

    def _beats(self, opened: gismo_core.Store) -> bool:
        """Does the lane's heartbeat move? Also while it is fenced."""
        seen = set()
        for pause_s in (0.0, 1.5, 1.5):
            time.sleep(pause_s)
            seen |= {one.heartbeat for one in opened.hosts() if one.host_id == self._node.host_id}
        return len(seen) > 1
