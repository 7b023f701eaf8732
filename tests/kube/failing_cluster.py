"""A cluster whose API server fails, for the operator's real code: users, nodes, agents, leaders, and what must never be.

`World` is the API server of api_model with all who write to it, and the truth that no object shows: which containers use
a store, and what lies in the memory. Every change of an object and of the memory, whoever makes it, is checked against what must
never be. The agents' real code runs too (pool.member), on a memory that is a model.

A *new* object may be made after another leads, or after whoever sent it gave up: nothing guards it but its name. So it may overlap, or
have another's host id; what must not be is that anybody acts on it.

Faults are given to a look of the operator one for each of its calls, in their order; after the last one all is well.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import api_model
import urllib3
from api_model import ApiServer, Call, Refused

from gismo_deviceplugin.pool import view
from gismo_deviceplugin.pool.label import END_BYTES, Label, LabelRange, Layout, State
from gismo_deviceplugin.pool.lanes import SilentHost
from gismo_deviceplugin.pool.medium import NotThere, Unfit
from gismo_deviceplugin.pool.member import Member
from gismo_deviceplugin.pool.view import PoolView
from gismo_deviceplugin.status import status
from gismo_kube.connection import REQUEST_ERRORS
from gismo_operator.api import quantity
from gismo_operator.kube import Kube, NotLeader
from gismo_operator.reconcile.tenants import FORCE_DELETE
from gismo_operator.reconciler import HIDDEN_S, Reconciler

POOL = "rack1"
NODES = ("a", "b", "c")
NAMES = ("one", "two", "three")
CAPACITY_MIB = 256
MOST_LOOKS = 30
TOLD_S = 0.5
LINE_BYTES = 4 << 10  # of the node lines, docs/pool-label.md
LINES = (64 << 10, (64 << 10) + 64 * LINE_BYTES)


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
    """Refused while something of it is in use that is not to be given up by force."""

    def do(self, world: World) -> None:
        kept = [one for one in world.ranges().values() if world.is_said_in_use(one) and not one["spec"]["force"]]
        if world.pool() is not None and not kept:
            world.server.delete("gismopools", POOL)


@dataclass(frozen=True, slots=True)
class DeleteRange:
    """`kubectl delete gns`: refused while it is in use."""

    name: str

    def do(self, world: World) -> None:
        one = world.ranges().get(self.name)
        if one is None:
            return
        is_given_up = one["spec"]["state"] in ("Releasing", "Quarantined")
        if is_given_up or FORCE_DELETE in one["metadata"].get("annotations", {}) or not world.is_said_in_use(one):
            world.deleted_by_hand.add(one["metadata"]["uid"])
            world.server.delete("gismonamespaces", one["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Force:
    """`kubectl annotate gpool`: these are not waited for, from now on; and no others."""

    names: tuple[str, ...]

    def do(self, world: World) -> None:
        if world.pool() is not None:
            named = {FORCE_DELETE: ",".join(self.names)} if self.names else {}
            body = {"metadata": {"name": POOL, "annotations": named}}
            world.server.apply("gismopools", body, "kubectl-annotate")


@dataclass(frozen=True, slots=True)
class ForceRange:
    """`kubectl annotate gns`."""

    name: str

    def do(self, world: World) -> None:
        one = world.ranges().get(self.name)
        if one is not None:
            body = {"metadata": {"name": one["metadata"]["name"], "annotations": {FORCE_DELETE: ""}}}
            world.server.apply("gismonamespaces", body, "kubectl-annotate")


@dataclass(frozen=True, slots=True)
class Node:
    """What becomes of a node. `off` is with the taint: somebody knows that it is off."""

    name: str
    becomes: str  # ready, notready, gone, reboots, off

    def do(self, world: World) -> None:
        world.node(self.name, self.becomes)


@dataclass(frozen=True, slots=True)
class Agent:
    """A round of a node's agent. late: what it sees of these is as of its last round, "ranges" or "nodes"; "mute": what it says does
    not arrive."""

    name: str
    late: str = ""

    def do(self, world: World) -> None:
        world.agent(self.name, late=self.late)


@dataclass(frozen=True, slots=True)
class AgentDies:
    """It is started again by the next round."""

    name: str

    def do(self, world: World) -> None:
        if self.name in world.machines:
            world.machines[self.name].member = None


@dataclass(frozen=True, slots=True)
class Use:
    """Containers of a node begin or end to use a Gismo namespace."""

    node: str
    name: str
    begins: bool

    def do(self, world: World) -> None:
        world.use(self.node, self.name, self.begins)


@dataclass(frozen=True, slots=True)
class Restart:
    """The containers of a node's pods start again, as after a reboot: with the shares that they had."""

    node: str

    def do(self, world: World) -> None:
        world.restart(self.node)


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


Act = (
    Edit
    | DeletePool
    | DeleteRange
    | Force
    | ForceRange
    | Node
    | Agent
    | AgentDies
    | Use
    | Restart
    | Wait
    | Arrive
    | Takeover
    | Look
)


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
            if call.is_write:
                self.world.on_their_way.append((self, call))
            raise _failure(0)
        if isinstance(fault, Slow):
            for act in fault.acts:
                act.do(self.world)
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

    name: str
    is_on: bool = True
    boot_id: str = ""
    member: Member | None = None  # the agent that runs
    saw: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by plural
    nonces: dict[str, str] = field(default_factory=dict)  # by pool; kept beside the state directories
    markers: set[str] = field(default_factory=set)  # stores that a container that has a share may be started with
    offered: set[str] = field(default_factory=set)  # stores that the kubelet gives shares of
    pods: set[str] = field(default_factory=set)  # stores that pods have a share of, as the kubelet says
    uses: set[str] = field(default_factory=set)  # stores that containers have open

    def boots(self, boot_id: str) -> None:
        """Nothing of before is there, but the pods."""
        self.boot_id, self.member = boot_id, None
        for each in (self.saw, self.nonces, self.markers, self.offered, self.uses):
            each.clear()


class Memory:
    """The pool's: the two ends of it, and which stores lie in it."""

    def __init__(self) -> None:
        self.size_bytes = CAPACITY_MIB * quantity.MIB + 2 * END_BYTES
        self.ends = {0: bytearray(END_BYTES), self.size_bytes - END_BYTES: bytearray(END_BYTES)}
        self.stores: dict[str, LabelRange] = {}  # that were formatted, and not zeroed since
        self.zeroed: set[str] = set()

    def read(self, offset: int, length: int) -> bytes:
        end = 0 if offset < END_BYTES else self.size_bytes - END_BYTES
        return bytes(self.ends[end][offset - end : offset - end + length])

    def write(self, offset: int, data: bytes) -> None:
        end = 0 if offset < END_BYTES else self.size_bytes - END_BYTES
        self.ends[end][offset - end : offset - end + len(data)] = data


class Seen:
    """The memory and the state directories as one node has them (Medium and StateDirectories of its agent)."""

    one_kernel = False
    is_resizable = False
    is_volatile = False

    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._machine = machine
        self.size_bytes = world.memory.size_bytes
        self.capacity_bytes = self.size_bytes - 2 * END_BYTES
        self.read = world.memory.read

    def check(self) -> None:
        """It is as it should be."""

    def open_label(self) -> Seen:
        return self

    def close(self) -> None:
        """Nothing to be closed."""

    def label_key(self) -> str:
        return "the one"

    def check_blank(self) -> None:
        """It is, where there is no label."""

    def carve(self, _ranges: object, _coherence: str, _beat: object) -> dict[str, Unfit]:
        return {}

    def drop_all_but(self, _stores: object, _holders: object) -> None:
        """A node has no end of its own."""

    def release(self, one: LabelRange, _coherence: str, _beat: object) -> None:
        if one.store_uuid in self._machine.uses:
            raise self._world.wrong(f"{self._machine.name} takes {one.namespace} away from who uses it there")

    def write(self, offset: int, data: bytes) -> None:
        if LINES[0] <= offset < LINES[1]:
            self._world.acts((offset - LINES[0]) // LINE_BYTES, self._machine.name)
        else:
            self._world.writes_label(self._machine.name)
        self._world.memory.write(offset, data)

    def users(self, store_uuid: str) -> tuple[str, ...]:
        return ("process 1 (ray)",) if store_uuid in self._machine.uses else ()

    def format(self, one: LabelRange, _coherence: str, _beat: object) -> None:
        memory = self._world.memory
        if one.store_uuid in memory.stores:
            return
        if one.store_uuid in memory.zeroed:
            raise self._world.wrong(f"the store of {one.namespace} is formatted a second time")
        for other in memory.stores.values():
            if one.offset_bytes < other.end_bytes and other.offset_bytes < one.end_bytes:
                raise self._world.wrong(f"{one.namespace} is formatted over {other.namespace}")
        memory.stores[one.store_uuid] = one

    def verify(self, one: LabelRange, _coherence: str) -> None:
        if one.store_uuid not in self._world.memory.stores:
            raise NotThere

    def zero(self, one: LabelRange, _beat: object) -> None:
        self._world.zero(one.store_uuid)

    def path(self, store_uuid: str) -> Path:
        return Path("/memory") / store_uuid

    def make(self, store_uuid: str, host_id: int) -> Path:
        self._world.acts(host_id, self._machine.name)
        return Path("/run") / store_uuid

    def mark(self, store_uuid: str, _host_id: int) -> None:
        self._machine.markers.add(store_uuid)

    def remove(self, store_uuid: str) -> None:
        self._machine.markers.discard(store_uuid)


class Lanes:
    """A node that is off is silent in the stores, too: in the place of pool/lanes.py, which has real stores in test_lanes.py."""

    def __init__(self, world: World) -> None:
        self._world = world

    def come_home(self, _store: object, _host_id: int) -> None:
        """Nobody took it."""

    def silent(self, seen: PoolView, stores: Mapping[str, object]) -> tuple[SilentHost, ...]:
        return tuple(
            SilentHost(
                one.node,
                one.host_id,
                one.boot_id,
                one.standing,
                active=len(stores) * self._world.is_on(one.node),
                fenced=len(stores) * (one.standing == "Suspect" and not self._world.is_on(one.node)),
                released=len(stores) * (one.standing == "Dead" and not self._world.is_on(one.node)),
            )
            for one in seen.others
            if one.standing != "Active" and one.boot_id
        )


class World:
    """All of it."""

    def __init__(self) -> None:
        self.is_wrong = False
        self.server = ApiServer()
        self.server.on_change = self._check
        self.now = 1000.0
        self.machines: dict[str, Machine] = {}
        self.memory = Memory()
        self.on_their_way: list[tuple[Process, Call]] = []
        self.deleted_by_hand: set[str] = set()  # uids
        self.came_late: set[str] = set()  # uids of objects that were made by who did not lead, or had given up waiting
        self._boots = itertools.count()
        self._nonces = itertools.count()
        self.processes = itertools.count()
        self._last_writer: dict[str, Process] = {}  # uid → who of the operator changed it last
        self._stores: dict[str, tuple[str, str]] = {}  # every store UUID that there ever was → uid, name of its object
        self._acted: dict[int, str] = {}  # host id → the node that did something under it
        self.writes = 0
        self.writer: Process | None = None  # who is changing something now
        self._arrives = False
        self.leader = Process(self)
        for name in NODES[:2]:
            self.node(name, "ready")

    def wrong(self, what: str) -> Wrong:
        self.is_wrong = True
        return Wrong(what)

    def is_on(self, node: str) -> bool:
        return node in self.machines and self.machines[node].is_on

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

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of one of the pool's."""
        one = self._condition(kind)
        return one["status"], one["reason"]

    def said(self, kind: str) -> str:
        """And its message."""
        return str(self._condition(kind)["message"])

    def _condition(self, kind: str) -> dict[str, Any]:
        pool = self.pool()
        assert pool is not None
        return next(one for one in pool["status"]["conditions"] if one["type"] == kind)

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
        self._arrives = True
        for process, call in calls:
            try:
                self.written_by(process, call)
            except Refused:
                pass
        self._arrives = False

    def node(self, name: str, becomes: str) -> None:
        machine = self.machines.setdefault(name, Machine(name))
        is_on = becomes != "off"
        if becomes == "reboots" or not machine.boot_id or (is_on and not machine.is_on):
            machine.boots(str(uuid.UUID(int=next(self._boots))))
        elif not is_on:
            machine.boots(machine.boot_id)
            machine.pods.clear()  # by who set the taint
        machine.is_on = is_on
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
        if begins:
            ranges = map(view.of_range, machine.saw.get("gismonamespaces", ()))
            may = machine.offered & machine.markers
            machine.pods |= {one.store_uuid for one in ranges if one.namespace == name and one.store_uuid in may}
            self.restart(node)
        else:
            ended = {store for store, (_, of) in self._stores.items() if of == name}
            machine.pods -= ended
            machine.uses -= ended

    def restart(self, node: str) -> None:
        machine = self.machines.get(node)
        if machine is not None and machine.is_on:
            machine.uses |= machine.pods & machine.markers

    def agent(self, name: str, *, late: str = "") -> None:
        """A round, as gismo_deviceplugin.agent has it."""
        machine = self.machines.get(name)
        if machine is None or not machine.is_on:
            return
        for plural, said in (("gismonamespaces", "ranges"), ("gismonodes", "nodes")):
            if late != said or plural not in machine.saw:
                machine.saw[plural] = self.server.all(plural)
        nodes, ranges = machine.saw["gismonodes"], machine.saw["gismonamespaces"]
        pools = view.of_pool(name, nodes, ranges, quantity.to_bytes)
        if POOL not in pools:
            return
        if machine.member is None:
            both: Any = Seen(self, machine)
            lanes: Any = Lanes(self)
            machine.member = Member(
                both,
                lambda store: ("team/pod",) if store in machine.pods else (),
                lambda _: both,
                machine.boot_id,
                lambda: self.now,
                nonce_of=lambda pool, _: machine.nonces.setdefault(pool, str(uuid.UUID(int=next(self._nonces)))),
                lanes=lanes,
            )
        seen = pools[POOL]
        report = machine.member.step(seen)
        is_active = seen.me.standing == "Active"
        machine.offered = {one.store_uuid for one in seen.ranges if is_active and one.namespace in report.ready}
        mine = next(one for one in nodes if one["spec"]["node"] == name)
        before = self.nodes()[name].get("status", {})
        made = status(report, before, f"at {self.now}", mine["metadata"]["generation"])
        body = {"metadata": {"name": mine["metadata"]["name"]}, "status": made}
        if late != "mute":
            self.server.apply("gismonodes", body, "gismo-agent", "status")

    @property
    def held(self) -> Layout | None:
        """In the pool label."""
        return Label(self.memory).layout()

    # ---- what must never be done with the memory -----------------------------------------------------

    def acts(self, host_id: int, node: str) -> None:
        """A node does something under a host id."""
        if self._acted.setdefault(host_id, node) != node:
            raise self.wrong(f"{node} acts under host id {host_id}, and {self._acted[host_id]} did")

    def writes_label(self, node: str) -> None:
        """A node writes what only the writer may."""
        writers = [name for name, one in self.nodes().items() if one["spec"]["writer"]]
        if writers != [node]:
            raise self.wrong(f"{node} writes the pool label, and the writer is {writers}")

    def zero(self, store_uuid: str) -> None:
        """A range is given back."""
        users = [name for name, machine in self.machines.items() if store_uuid in machine.uses]
        if users:
            raise self.wrong(f"{store_uuid} is zeroed under {users}")
        self.memory.stores.pop(store_uuid, None)
        self.memory.zeroed.add(store_uuid)

    # ---- what must never be --------------------------------------------------------------------------

    def _check(self, plural: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if plural == "gismonamespaces":
            self._check_range(old, new)
        elif plural == "gismonodes" and new is not None:
            self._check_node()
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
        if old is None and (self._arrives or self.writer is not self.leader):
            self.came_late.add(uid)
        is_deleted = "deletionTimestamp" in new["metadata"] and spec["state"] in ("Active", "Retained")
        if is_deleted and uid not in self.deleted_by_hand:
            raise self.wrong(f"{spec['namespace']} is deleted, and is {spec['state']}")
        if old is not None:
            for name in ("offsetBytes", "sizeBytes", "storeUUID"):
                if old["spec"][name] != spec[name]:
                    raise self.wrong(f"{name} of {spec['namespace']} changed")
        is_another = self._stores.setdefault(spec["storeUUID"], (uid, spec["namespace"])) != (uid, spec["namespace"])
        if is_another and uid not in self.came_late:
            raise self.wrong(f"the store UUID of {spec['namespace']} was another range's: {spec['storeUUID']}")
        for other in self.server.all("gismonamespaces"):
            both = {uid, other["metadata"]["uid"]}
            if len(both) == 2 and not both & self.came_late and _overlap(other["spec"], spec):
                raise self.wrong(f"{other['spec']['namespace']} and {spec['namespace']} overlap")

    def _check_freed(self, one: dict[str, Any]) -> None:
        name, store = one["spec"]["namespace"], one["spec"]["storeUUID"]
        if not _has_finalizer(one):
            return  # freed before
        in_label = next((each for each in self._in_label() if each.store_uuid == store), None)
        if in_label is not None and in_label.state is State.QUARANTINED:
            return  # its bytes are kept
        users = [node for node, machine in self.machines.items() if store in machine.uses]
        if users:
            raise self.wrong(f"{name} is freed, and in use on {users}")
        if store in self.memory.stores or (in_label is not None and in_label.state is not State.ZEROED):
            raise self.wrong(f"{name} is freed, and was not zeroed")

    def _in_label(self) -> tuple[LabelRange, ...]:
        held = self.held
        return held.ranges if held is not None else ()

    def _check_node(self) -> None:
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
        ids = [one["spec"]["hostId"] for one in nodes.values()]
        if len(ids) != len(set(ids)):
            raise self.wrong(f"host ids are not each one node's: {ids}")
        if not self._has_writer(nodes):
            return
        in_label = {one.store_uuid: one for one in self._in_label()}
        silent = [
            node
            for node, at in nodes.items()
            if at["spec"]["standing"] in ("Suspect", "Fenced") and not self.machines[node].is_on
        ]
        used = {store for machine in self.machines.values() for store in machine.uses | machine.pods}
        for name, one in ranges.items():
            spec = one["spec"]
            if spec["storeUUID"] not in in_label:
                raise self.wrong(f"{name} never gets into the pool label")
            if spec["state"] in ("Releasing", "Quarantined"):
                if spec["force"]:
                    raise self.wrong(f"{name} is given up by force, and stays")
                if not silent and spec["storeUUID"] not in used:
                    raise self.wrong(f"{name} is never released")
        for store in in_label.keys() - {one["spec"]["storeUUID"] for one in ranges.values()}:
            left = in_label[store]
            if left.state is not State.QUARANTINED or (not silent and store not in used):
                raise self.wrong(f"{left.namespace} stays in the pool label as {left.state.value}")

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
