"""A node's part in one pool: brings the memory to what the API says, step by step, and tells how far it is.

A step looks at everything anew, does what can be done now, and ends. It can be cut off at any instruction and repeated at
any time; nothing that it needs to know is remembered but the nonce of this start, so that an agent that is killed goes on
where the memory and the API are. The writer node is the only one that formats, removes, and writes layouts.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from gismo_core import node_marker
from gismo_deviceplugin.pool.label import (
    AnotherPools,
    Host,
    Label,
    LabelError,
    LabelRange,
    Layout,
    NodeLine,
    NotASuccessor,
    State,
    check_pool,
)
from gismo_deviceplugin.pool.medium import Holders, Medium, NotThere, Unfit
from gismo_deviceplugin.pool.records import TooNew
from gismo_deviceplugin.pool.state import StateDirectories
from gismo_deviceplugin.pool.view import NodeView, PoolView, RangeView, Source

logger = logging.getLogger("gismo.agent")

PATIENCE_S = 30.0  # for a line of the label that is not what its node said
_FAILURES = 32  # as many as the API takes
_HOLDERS = 8

Media = Callable[[Source], Medium]


@dataclass(frozen=True, slots=True)
class Failure:
    """What does not work. namespace: of the Gismo namespace, or empty for the pool itself."""

    namespace: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """How far this node is with a pool: the status of its GismoNode, and what it may offer."""

    layout_version: int | None  # reached; None: not even the label is there
    capacity_bytes: int | None
    boot_id: str
    nonce: str | None
    same_memory: bool | None  # None: not known yet
    ready: tuple[str, ...] = ()  # Gismo namespaces whose store is there, proven and prepared
    waiting: tuple[str, ...] = ()  # not yet, and nothing is wrong
    failures: tuple[Failure, ...] = ()
    released: frozenset[str] = frozenset()  # store UUIDs
    in_use: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Waiting(RuntimeError):
    """Nothing is wrong: another node, or the operator, has to do something first."""


class Member:
    """This node in one pool."""

    def __init__(
        self,
        state: StateDirectories,
        holders: Holders,
        media: Media,
        boot_id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._holders = holders
        self._media = media
        self._boot_id = boot_id or node_marker.boot_id()
        self._clock = clock
        self._nonce = str(uuid.uuid4())  # of this start
        self._unequal_since: dict[tuple[str, str], float] = {}  # node and the nonce that it said

    def step(self, view: PoolView) -> Report:
        """As far as it goes now."""
        report = Report(None, None, self._boot_id, None, None)
        in_use = {one.namespace: who for one in view.ranges if (who := self._holders(one.store_uuid))}
        report = replace(report, in_use={name: who[:_HOLDERS] for name, who in in_use.items()})
        memory = self._media(view.source)
        try:
            memory.check()
            for one in view.ranges:
                if one.state is State.RELEASING and one.namespace not in in_use:
                    in_use[one.namespace] = memory.users(one.store_uuid)
            file = memory.open_label()
        except (Unfit, OSError) as error:
            return replace(report, failures=(_failure("", "MemoryUnfit", error),))
        report = replace(report, in_use={name: who[:_HOLDERS] for name, who in in_use.items() if who})
        try:
            return self._with_label(view, memory, Label(file), replace(report, capacity_bytes=memory.capacity_bytes))
        except Waiting as error:
            logger.info("pool %s: %s", view.pool, error)
            return replace(report, waiting=tuple(one.namespace for one in view.ranges))
        except (Unfit, OSError) as error:
            return replace(report, failures=(_failure("", "MemoryUnfit", error),))
        except TooNew as error:
            return replace(report, failures=(Failure("", "NewerLayout", str(error)),))
        except AnotherPools as error:
            return replace(report, failures=(Failure("", "PoolsOverlap", str(error)),))
        except NotASuccessor as error:
            return replace(report, failures=(Failure("", "LayoutConflict", str(error)),))
        except LabelError as error:
            return replace(report, same_memory=False, failures=(Failure("", "NotTheSameMemory", str(error)),))
        finally:
            file.close()

    # ---- the label -------------------------------------------------------------------------------

    def _with_label(self, view: PoolView, memory: Medium, label: Label, report: Report) -> Report:
        me = view.me
        if label.identity() is None:
            if not me.writer:
                raise Waiting("the writer node has to format the pool")
            memory.check_blank()
            label.format(str(uuid.uuid4()))
        layout = self._layout(view, label)
        line = NodeLine(me.host_id, me.node, self._boot_id, self._nonce, layout.version)
        if label.line(me.host_id) != line:
            label.write_line(line)
        report = replace(report, layout_version=layout.version, nonce=self._nonce)
        strangers, unseen = self._proof(view, label, one_kernel=memory.one_kernel)
        if strangers:
            return replace(report, same_memory=False, failures=(Failure("", "NotTheSameMemory", "; ".join(strangers)),))
        return self._ranges(view, memory, label, layout, replace(report, same_memory=None if unseen else True))

    def _layout(self, view: PoolView, label: Label) -> Layout:
        """The layout that holds. The writer makes it what the API says; the others wait until it knows their ranges."""
        held = label.layout()
        if not view.me.writer:
            if held is None:
                raise Waiting("the writer node has to write the layout")
            check_pool(held, view.pool)
            return held
        there = {one.store_uuid: one for one in held.ranges} if held is not None else {}
        # New ranges count with the number that the operator gives the layout after it has made them.
        may_grow = held is None or view.me.layout_version > held.version
        ranges = [
            _label_range(one, there.get(one.store_uuid)) for one in view.ranges if may_grow or one.store_uuid in there
        ]
        wanted = Layout(
            view.me.layout_version,
            view.pool,
            tuple(sorted(ranges, key=lambda one: one.offset_bytes)),
            self._hosts(view, held),
        )
        if wanted != held:
            label.write_layout(wanted)
        return wanted

    @staticmethod
    def _hosts(view: PoolView, held: Layout | None) -> tuple[Host, ...]:
        """Also of those that have left: their lanes in the stores are not to be given to others."""
        known = {one.host_id: one for one in (held.hosts if held is not None else ())}
        for node in (view.me, *view.others):
            known[node.host_id] = Host(node.host_id, node.node, node.incarnation)
        return tuple(known[host_id] for host_id in sorted(known))

    def _proof(self, view: PoolView, label: Label, *, one_kernel: bool) -> tuple[list[str], list[str]]:
        """Nodes that are known to see another memory, with why; and nodes that could not be compared yet."""
        strangers, unseen = [], []
        for other in view.others:
            if other.standing == "Dead" or other.nonce is None:
                continue
            if one_kernel and other.boot_id != self._boot_id:
                strangers.append(
                    f"{other.node} is another machine (boot id {other.boot_id}, here {self._boot_id}), and emulated memory is "
                    "that of one machine"
                )
                continue
            line = label.line(other.host_id)
            if line is not None and (line.node, line.nonce) == (other.node, other.nonce):
                self._unequal_since.pop((other.node, other.nonce), None)
                continue
            since = self._unequal_since.setdefault((other.node, other.nonce), self._clock())
            if self._clock() - since < PATIENCE_S:
                unseen.append(other.node)
                continue
            found = "nothing" if line is None else f"{line.nonce} of {line.node}"
            strangers.append(
                f"{other.node} wrote {other.nonce} into the pool label, and {found} is found here: "
                f"{'the directory' if one_kernel else 'the region'} is not the same memory on both nodes"
            )
        return strangers, unseen

    # ---- the ranges ------------------------------------------------------------------------------

    def _ranges(self, view: PoolView, memory: Medium, label: Label, layout: Layout, report: Report) -> Report:
        known = {one.store_uuid: one for one in layout.ranges}
        memory.drop_all_but(frozenset(known) | {one.store_uuid for one in view.ranges}, self._holders)
        refused = self._carve(view, memory, known)
        ready, waiting, released = [], [], set()
        failures: list[Failure] = []
        for one in view.ranges:
            in_label = known.get(one.store_uuid)
            try:
                if in_label is None:
                    raise Waiting("the writer node has to write it into the pool label")
                if one.state is State.RELEASING:
                    if self._release(view, memory, label, in_label, one, in_use=one.namespace in report.in_use):
                        released.add(one.store_uuid)
                elif one.state is State.ACTIVE:
                    if one.store_uuid in refused:
                        raise refused[one.store_uuid]
                    self._make_ready(view, memory, label, in_label, one)
                    if report.same_memory is not True:
                        raise Waiting("the other nodes have not shown yet that they see this memory")
                    ready.append(one.namespace)
            except (Waiting, NotThere):
                waiting.append(one.namespace)
            except (Unfit, ValueError, OSError) as error:
                failures.append(_failure(one.namespace, "StoreNotReady", error))
        return replace(
            report,
            ready=tuple(ready),
            waiting=tuple(waiting),
            failures=tuple(failures[:_FAILURES]),
            released=frozenset(released),
        )

    @staticmethod
    def _carve(view: PoolView, memory: Medium, known: Mapping[str, LabelRange]) -> Mapping[str, Unfit]:
        """All that is used or is to be used here, at once."""
        active = [one for one in view.ranges if one.state is State.ACTIVE]
        ranges = [known[one.store_uuid] for one in active if one.store_uuid in known]
        ranges = [one for one in ranges if not one.state.is_end]
        return memory.carve(ranges, active[0].coherence) if ranges else {}

    def _make_ready(self, view: PoolView, memory: Medium, label: Label, in_label: LabelRange, one: RangeView) -> None:
        if in_label.state.is_end:
            raise ValueError(
                f"the range of {one.namespace} is being zeroed, and the API has it as active: it is not used again"
            )
        try:
            if view.me.writer and not in_label.formatted:
                memory.format(in_label, one.coherence)
            memory.verify(in_label, one.coherence)
        except NotThere as error:
            if in_label.formatted:
                raise Unfit(
                    f"the store of {one.namespace} was there, and is gone: {error}. None is made in its place by itself: remove the "
                    "namespace from the pool and add it again, or find out who wrote over it",
                    "StoreLost",
                ) from error
            raise
        if view.me.writer and not in_label.formatted and not memory.is_volatile:
            self._change(label, in_label.store_uuid, lambda there: replace(there, formatted=True))
        self._state.prepare(one.store_uuid, view.me.host_id)

    @staticmethod
    def _change(label: Label, store_uuid: str, change: Callable[[LabelRange], LabelRange]) -> None:
        """By the writer: one range of the layout that holds, for a step that is between two layouts of the API."""
        held = label.layout()
        if held is None:
            raise Waiting("the layout has gone")
        ranges = tuple(change(one) if one.store_uuid == store_uuid else one for one in held.ranges)
        if ranges != held.ranges:
            label.write_layout(replace(held, ranges=ranges))

    def _release(
        self, view: PoolView, memory: Medium, label: Label, in_label: LabelRange, one: RangeView, *, in_use: bool
    ) -> bool:
        """Is it not used here any more; and on the writer node: zeroed, after all others have said so?"""
        if in_use:
            return False
        self._state.remove(in_label.store_uuid)
        memory.release(in_label, one.coherence)
        if not view.me.writer or in_label.state is State.ZEROED:
            return True
        if not all(_has_released(other, in_label.store_uuid) for other in view.others):
            return False
        self._change(label, in_label.store_uuid, lambda there: replace(there, state=State.ZEROING))
        memory.zero(in_label)
        self._change(label, in_label.store_uuid, lambda there: replace(there, state=State.ZEROED))
        return True


def _failure(namespace: str, reason: str, error: Exception) -> Failure:
    """reason: where the error itself has none."""
    return Failure(namespace, getattr(error, "reason", None) or reason, str(error))


def _label_range(one: RangeView, there: LabelRange | None) -> LabelRange:
    """As the API has it; but what is being zeroed, or was, stays so."""
    state = there.state if there is not None and there.state.is_end else one.state
    formatted = there is not None and there.formatted
    return LabelRange(one.namespace, one.offset_bytes, one.size_bytes, one.store_uuid, state, formatted)


def _has_released(node: NodeView, store_uuid: str) -> bool:
    return node.standing == "Dead" or store_uuid in node.released
