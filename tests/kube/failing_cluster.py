"""A cluster whose API server fails, for the operator's real code: users, nodes, agents, leaders, and what must never be.

`World` is the API server of api_model with all who write to it, and the truth that no object shows: which containers use
a store, and what was zeroed. Every change of an object, whoever makes it, is checked against what must never be.

One thing is left out, that no write can be guarded against: a *new* object that is made after another leads, or after whoever
sent it gave up (docs/kubernetes.md, "The operator as a process").

Faults are given to a look of the operator one for each of its calls, in their order; after the last one all is well.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import api_model
import urllib3
from api_model import ApiServer, Call, Refused

from gismo_deviceplugin.pool.label import Layout, NotASuccessor, State, check_successor
from gismo_deviceplugin.pool.member import _label_range
from gismo_deviceplugin.pool.view import of_range
from gismo_kube.connection import REQUEST_ERRORS
from gismo_operator.api import quantity
from gismo_operator.kube import Kube, NotLeader
from gismo_operator.reconciler import HIDDEN_S, Reconciler

POOL = "rack1"
NODES = ("a", "b", "c")
NAMES = ("one", "two", "three")
CAPACITY_MIB = 256
LABEL_MIB = 2
MOST_LOOKS = 30
TOLD_S = 0.5


class Wrong(AssertionError):
    """What must never be."""


class Died(BaseException):
    """The process is gone between two instructions."""


# ---- what a call meets -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NotDone:
    """It fails before anything is done. 0: the connection is reset."""

    status: int = 503


@dataclass(frozen=True, slots=True)
class Unknown:
    """It is carried out, and whoever asked does not learn of it."""

    status: int = 0


@dataclass(frozen=True, slots=True)
class Late:
    """The time runs out, and the request is carried out afterwards: it was on its way still."""


@dataclass(frozen=True, slots=True)
class Dies:
    """The process dies before or after the call."""

    is_done: bool


@dataclass(frozen=True, slots=True)
class Slow:
    """It takes long, and others act before it is carried out."""

    acts: tuple[Act, ...]


Fault = NotDone | Unknown | Late | Dies | Slow | None


# ---- what others do --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Edit:
    """The user applies the pool with these: name → (MiB, reclaimPolicy, access)."""

    entries: tuple[tuple[str, int, str, tuple[str, ...]], ...]

    def do(self, world: World) -> None:
        asked = [
            {
                "name": name,
                "size": f"{mib}Mi",
                "reclaimPolicy": policy,
                "access": {"kubernetesNamespaces": list(access)},
            }
            for name, mib, policy, access in self.entries
        ]
        before = {one["name"]: one["size"] for one in world.asked()}
        if any(before.get(one["name"], one["size"]) != one["size"] for one in asked):
            return  # refused: the size cannot be changed
        if sum(mib for _, mib, _, _ in self.entries) > CAPACITY_MIB:
            return  # refused as well
        source = {"emulated": {"capacity": f"{CAPACITY_MIB}Mi"}}
        body = {"metadata": {"name": POOL}, "spec": {"source": source, "namespaces": asked}}
        world.server.apply("gismopools", body, "kubectl")


@dataclass(frozen=True, slots=True)
class DeletePool:
    """Refused while something of it is in use."""

    def do(self, world: World) -> None:
        if world.pool() is not None and not any(map(world.is_said_in_use, world.ranges().values())):
            world.server.delete("gismopools", POOL)


@dataclass(frozen=True, slots=True)
class DeleteRange:
    """`kubectl delete gns`: refused while it is in use."""

    name: str

    def do(self, world: World) -> None:
        one = world.ranges().get(self.name)
        if one is not None and (one["spec"]["state"] == "Releasing" or not world.is_said_in_use(one)):
            world.deleted_by_hand.add(one["metadata"]["uid"])
            world.server.delete("gismonamespaces", one["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Node:
    """What becomes of a node. `off` is with the taint: somebody knows that it is off."""

    name: str
    becomes: str  # ready, notready, gone, reboots, off

    def do(self, world: World) -> None:
        world.node(self.name, self.becomes)


@dataclass(frozen=True, slots=True)
class Agent:
    """A round of a node's agent. is_late: its view of the ranges is that of its last round."""

    name: str
    is_late: bool = False

    def do(self, world: World) -> None:
        world.agent(self.name, is_late=self.is_late)


@dataclass(frozen=True, slots=True)
class Use:
    """Containers of a node begin or end to use a Gismo namespace."""

    node: str
    name: str
    begins: bool

    def do(self, world: World) -> None:
        world.use(self.node, self.name, self.begins)


@dataclass(frozen=True, slots=True)
class Wait:
    """Time goes by."""

    seconds: float

    def do(self, world: World) -> None:
        world.now += self.seconds


@dataclass(frozen=True, slots=True)
class Arrive:
    """What was on its way is carried out."""

    def do(self, world: World) -> None:
        world.arrive()


@dataclass(frozen=True, slots=True)
class Takeover:
    """The Lease runs out under the one that leads; another leads, and looks so many times."""

    looks: int

    def do(self, world: World) -> None:
        world.now += 15
        world.leader = Process(world)
        for _ in range(self.looks):
            world.leader.look()


@dataclass(frozen=True, slots=True)
class Look:
    """Who leads by now looks so many times."""

    looks: int

    def do(self, world: World) -> None:
        for _ in range(self.looks):
            world.leader.look()


Act = Edit | DeletePool | DeleteRange | Node | Agent | Use | Wait | Arrive | Takeover | Look


# ---- the operator ----------------------------------------------------------------------------------------------------


class Process:
    """A replica that leads until another one does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.number = next(world.processes)
        self._faults: list[Fault] = []
        kube = Kube(api_model.connect(self._carry_out), may_write=self._leads)
        self._reconciler = Reconciler(kube, lambda: world.now)

    def _leads(self) -> bool:
        return self.world.leader is self

    def look(self, faults: Sequence[Fault] = ()) -> float | None:
        """One look: in how many seconds the next one. It ends however it may: what is expected is taken as the process does."""
        self._faults = list(faults)
        try:
            return self._reconciler.look(POOL)
        except NotLeader:
            return None
        except REQUEST_ERRORS:
            return 0.1
        except Died:
            self.world.leader = Process(self.world)
            return 0.0
        finally:
            self._faults = []

    def _carry_out(self, call: Call) -> Any:
        server = self.world.server
        if not call.plural:
            return server.do(call)
        fault = self._faults.pop(0) if self._faults else None
        if isinstance(fault, Dies) and not fault.is_done:
            raise Died
        if isinstance(fault, NotDone):
            raise _failure(fault.status)
        if isinstance(fault, Late):
            if call.is_write and call.method != "POST":
                self.world.on_their_way.append((self, call))
            raise _failure(0)
        if isinstance(fault, Slow):
            for act in fault.acts:
                act.do(self.world)
        if call.method == "POST" and not self._leads():
            raise _failure(0)
        answer = self.world.written_by(self, call)
        if isinstance(fault, Dies):
            raise Died
        if isinstance(fault, Unknown):
            raise _failure(fault.status)
        return answer


def _failure(status: int) -> Exception:
    if status:
        return Refused(status, "the model says so")
    return urllib3.exceptions.ProtocolError("Connection aborted.", ConnectionResetError(104, "reset"))


# ---- the world -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Machine:
    """A node's truth."""

    is_on: bool = True
    boot_id: str = ""
    saw_ranges: list[dict[str, Any]] = field(default_factory=list)
    markers: set[str] = field(default_factory=set)  # stores that a container may be started with
    uses: set[str] = field(default_factory=set)  # stores that containers have open


class World:
    """All of it."""

    def __init__(self) -> None:
        self.is_wrong = False
        self.server = ApiServer()
        self.server.on_change = self._check
        self.now = 1000.0
        self.machines: dict[str, Machine] = {}
        self.on_their_way: list[tuple[Process, Call]] = []
        self.deleted_by_hand: set[str] = set()  # uids
        self.held: Layout | None = None  # in the pool label
        self.zeroed: set[str] = set()  # stores
        self.formatted: set[str] = set()
        self._boots = itertools.count()
        self.processes = itertools.count()
        self._last_writer: dict[str, Process] = {}  # uid → who of the operator changed it last
        self._stores: dict[str, tuple[str, str]] = {}  # every store UUID that there ever was → uid, name of its object
        self._host_ids: dict[int, str] = {}  # every host id that there ever was → node
        self.writes = 0
        self.writer: Process | None = None  # who is changing something now
        self.leader = Process(self)
        for name in NODES[:2]:
            self.node(name, "ready")

    def wrong(self, what: str) -> Wrong:
        self.is_wrong = True
        return Wrong(what)

    # ---- what there is -------------------------------------------------------------------------------

    def pool(self) -> dict[str, Any] | None:
        return self.server.get("gismopools", POOL)

    def asked(self) -> list[dict[str, Any]]:
        found = self.pool()
        return found["spec"]["namespaces"] if found is not None else []

    def ranges(self) -> dict[str, dict[str, Any]]:
        return {one["spec"]["namespace"]: one for one in self.server.all("gismonamespaces")}

    def nodes(self) -> dict[str, dict[str, Any]]:
        return {one["spec"]["node"]: one for one in self.server.all("gismonodes")}

    @staticmethod
    def is_said_in_use(one: dict[str, Any]) -> bool:
        conditions = one.get("status", {}).get("conditions", [])
        return any(each["type"] == "InUse" and each["status"] == "True" for each in conditions)

    # ---- what happens --------------------------------------------------------------------------------

    def written_by(self, process: Process, call: Call) -> Any:
        if call.is_write:
            self.writes += 1
        before, self.writer = self.writer, process
        try:
            return self.server.do(call)
        finally:
            self.writer = before

    def arrive(self) -> None:
        calls, self.on_their_way = self.on_their_way, []
        for process, call in calls:
            try:
                self.written_by(process, call)
            except Refused:
                pass

    def node(self, name: str, becomes: str) -> None:
        machine = self.machines.setdefault(name, Machine())
        if becomes in ("off", "reboots"):
            machine.uses.clear()
            machine.markers.clear()
        if becomes == "reboots" or not machine.boot_id or (becomes == "ready" and not machine.is_on):
            machine.boot_id = str(uuid.UUID(int=next(self._boots)))
        machine.is_on = becomes != "off"
        if becomes == "gone":
            if self.server.get("nodes", name) is not None:
                self.server.delete("nodes", name)
            return
        ready = "True" if becomes in ("ready", "reboots") else "False"
        taints = [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}] if becomes == "off" else []
        body = {
            "metadata": {"name": name, "annotations": {"gismo.io/regions": "[]"}},
            "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}], "nodeInfo": {"bootID": machine.boot_id}},
        }
        if self.server.get("nodes", name) is None:
            self.server.apply("nodes", body, "kubelet")
        self.server.apply("nodes", body, "kubelet")
        self.server.apply("nodes", body, "kubelet", "status")

    def use(self, node: str, name: str, begins: bool) -> None:
        machine = self.machines.get(node)
        if machine is None or not machine.is_on:
            return
        for store in [one.store_uuid for one in map(of_range, machine.saw_ranges) if one.namespace == name]:
            if not begins:
                machine.uses.discard(store)
            elif store in machine.markers:
                machine.uses.add(store)

    def agent(self, name: str, *, is_late: bool = False) -> None:
        """As gismo_deviceplugin.pool.member does it, on a label that is right."""
        machine, nodes = self.machines.get(name), self.nodes()
        if machine is None or not machine.is_on or name not in nodes:
            return
        if not is_late:
            machine.saw_ranges = self.server.all("gismonamespaces")
        ranges = [of_range(one) for one in machine.saw_ranges]
        me = nodes[name]["spec"]
        said: dict[str, Any] = {"bootId": machine.boot_id, "failures": [], "released": [], "inUse": []}
        for one in ranges:
            if one.store_uuid in machine.uses:
                said["inUse"].append({"namespace": one.namespace, "holders": ["team/pod"]})
        try:
            layout = self._layout(me, ranges)
        except NotASuccessor as error:
            said["failures"] = [{"namespace": "", "reason": "LayoutConflict", "message": str(error)}]
            layout = None
        ready = 0
        if layout is not None:
            said["layoutVersion"] = layout.version
            for one in ranges:
                in_label = next((each for each in layout.ranges if each.store_uuid == one.store_uuid), None)
                if in_label is None:
                    continue
                if one.state is State.ACTIVE:
                    if me["writer"]:
                        self.formatted.add(one.store_uuid)
                    if one.store_uuid in self.formatted:
                        machine.markers.add(one.store_uuid)
                        ready += 1
                elif one.state is State.RELEASING and one.store_uuid not in machine.uses:
                    machine.markers.discard(one.store_uuid)
                    if not me["writer"] or self._zero(name, nodes, one.store_uuid):
                        said["released"].append(one.store_uuid)
        said["ready"] = ready
        body = {"metadata": {"name": nodes[name]["metadata"]["name"]}, "status": said}
        self.server.apply("gismonodes", body, "gismo-agent", "status")

    def _layout(self, me: dict[str, Any], ranges: list[Any]) -> Layout | None:
        held = self.held
        if not me["writer"]:
            return held
        there = {one.store_uuid: one for one in held.ranges} if held is not None else {}
        may_grow = held is None or me["layoutVersion"] > held.version
        kept = [_label_range(one, there.get(one.store_uuid)) for one in ranges if may_grow or one.store_uuid in there]
        new = Layout(me["layoutVersion"], POOL, tuple(sorted(kept, key=lambda one: one.offset_bytes)), ())
        check_successor(held, new, (CAPACITY_MIB + 2 * LABEL_MIB) * quantity.MIB)
        self.held = new
        return new

    def _zero(self, writer: str, nodes: dict[str, dict[str, Any]], store: str) -> bool:
        for name, one in nodes.items():
            has_released = store in one.get("status", {}).get("released", [])
            if name != writer and one["spec"]["standing"] != "Dead" and not has_released:
                return False
        assert self.held is not None
        ranges = (replace(one, state=State.ZEROING) if one.store_uuid == store else one for one in self.held.ranges)
        self.held = replace(self.held, ranges=tuple(ranges))
        self.zeroed.add(store)
        return True

    # ---- what must never be --------------------------------------------------------------------------

    def _check(self, plural: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if plural == "gismonamespaces":
            self._check_range(old, new)
        elif plural == "gismonodes" and new is not None:
            self._check_node(new)
        if new is None or self.writer is None:
            return
        last = self._last_writer.get(new["metadata"]["uid"], self.writer)
        if last.number > self.writer.number:
            raise self.wrong(f"an old leader overwrote what the new one made of {plural} {new['metadata']['name']}")
        self._last_writer[new["metadata"]["uid"]] = self.writer

    def _check_range(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if new is None or (old is not None and _has_finalizer(old) and not _has_finalizer(new)):
            assert old is not None
            self._check_freed(old)
        if new is None:
            return
        spec, uid = new["spec"], new["metadata"]["uid"]
        is_deleted = "deletionTimestamp" in new["metadata"] and spec["state"] != "Releasing"
        if is_deleted and uid not in self.deleted_by_hand:
            raise self.wrong(f"{spec['namespace']} is deleted, and is {spec['state']}")
        if old is not None:
            for name in ("offsetBytes", "sizeBytes", "storeUUID"):
                if old["spec"][name] != spec[name]:
                    raise self.wrong(f"{name} of {spec['namespace']} changed")
        if self._stores.setdefault(spec["storeUUID"], (uid, spec["namespace"])) != (uid, spec["namespace"]):
            raise self.wrong(f"the store UUID of {spec['namespace']} was another range's: {spec['storeUUID']}")
        for other in self.server.all("gismonamespaces"):
            if other["metadata"]["uid"] != uid and _overlap(other["spec"], spec):
                raise self.wrong(f"{other['spec']['namespace']} and {spec['namespace']} overlap")

    def _check_freed(self, one: dict[str, Any]) -> None:
        name, store = one["spec"]["namespace"], one["spec"]["storeUUID"]
        if not _has_finalizer(one):
            return  # freed before
        users = [node for node, machine in self.machines.items() if store in machine.uses]
        if users:
            raise self.wrong(f"{name} is freed, and in use on {users}")
        if store not in self.zeroed:
            raise self.wrong(f"{name} is freed, and was not zeroed")

    def _check_node(self, new: dict[str, Any]) -> None:
        spec = new["spec"]
        if self._host_ids.setdefault(spec["hostId"], spec["node"]) != spec["node"]:
            raise self.wrong(f"host id {spec['hostId']} of {spec['node']} was {self._host_ids[spec['hostId']]}'s")
        writers = [one["spec"]["node"] for one in self.server.all("gismonodes") if one["spec"]["writer"]]
        if len(writers) > 1:
            raise self.wrong(f"{writers} are writers at a time")

    # ---- the end -------------------------------------------------------------------------------------

    def settle(self) -> int:
        """The faults have stopped. After how many looks nothing is written any more. Wrong, if it never is, or is not right."""
        self.arrive()
        for count in range(MOST_LOOKS):
            before = self.server.version
            again = self.leader.look()
            for name in self.machines:
                self.agent(name)
            if self.server.version != before:
                self.now += TOLD_S
            elif again is None:
                self._check_rest()
                return count
            elif again == 0.0:
                raise self.wrong("it looks again at once, and changes nothing")
            else:
                self.now += again
        raise self.wrong(f"after {MOST_LOOKS} looks it writes still")

    def _check_rest(self) -> None:
        before = self.writes
        self.leader = Process(self)
        self.leader.look()
        self.now += HIDDEN_S
        if self.leader.look() is not None or self.writes != before:
            raise self.wrong("at rest something is written")
        pool, ranges, nodes = self.pool(), self.ranges(), self.nodes()
        self._check_ranges_at_rest(ranges, nodes)
        if pool is None:
            return
        conditions = {one["type"]: one for one in pool["status"]["conditions"]}
        is_up = {one["metadata"]["name"] for one in self.server.all("nodes") if _is_ready(one)}
        if is_up - nodes.keys():
            raise self.wrong(f"{is_up - nodes.keys()} have no GismoNode")
        is_complete = True
        for asked in pool["spec"]["namespaces"]:
            one = ranges.get(asked["name"])
            if one is None or one["spec"]["state"] != "Active":
                is_complete = False
                continue
            wanted = {name: asked[name] for name in ("access", "reclaimPolicy", "sharesPerNode")}
            if any(one["spec"][name] != value for name, value in wanted.items()):
                raise self.wrong(f"{asked['name']} has other settings than the pool")
        if conditions["Ready"]["status"] == "True":
            if not is_complete or not is_up:
                raise self.wrong("Ready, and not all of it is there")
        elif is_complete and is_up and conditions["Degraded"]["status"] == "False" and self._has_writer(nodes):
            raise self.wrong(f"all is well, and not Ready: {conditions['Ready']}")

    def _check_ranges_at_rest(self, ranges: dict[str, dict[str, Any]], nodes: dict[str, dict[str, Any]]) -> None:
        if not self._has_writer(nodes):
            return
        known = {one.store_uuid for one in self.held.ranges} if self.held is not None else set()
        for name, one in ranges.items():
            spec = one["spec"]
            if spec["storeUUID"] not in known:
                raise self.wrong(f"{name} never gets into the pool label")
            if spec["state"] != "Releasing":
                continue
            in_use = any(spec["storeUUID"] in machine.uses for machine in self.machines.values())
            silent = [
                node
                for node, at in nodes.items()
                if at["spec"]["standing"] == "Suspect" and not self.machines[node].is_on
            ]
            if not in_use and not silent:
                raise self.wrong(f"{name} is never released")

    def _has_writer(self, nodes: dict[str, dict[str, Any]]) -> bool:
        return any(one["spec"]["writer"] and self.machines[name].is_on for name, one in nodes.items())


def _has_finalizer(one: dict[str, Any]) -> bool:
    return "gismo.io/range" in one["metadata"].get("finalizers", [])


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(
        one["pool"] == other["pool"]
        and one["offsetBytes"] < other["offsetBytes"] + other["sizeBytes"]
        and other["offsetBytes"] < one["offsetBytes"] + one["sizeBytes"]
    )


def _is_ready(node: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])


def replay(*steps: Act | Sequence[Fault]) -> World:
    """A world in which this happened: an act, or a look of the leader with these faults. For an example that was found."""
    world = World()
    for step in steps:
        if isinstance(step, Sequence):
            world.leader.look(step)
        else:
            step.do(world)
    return world
