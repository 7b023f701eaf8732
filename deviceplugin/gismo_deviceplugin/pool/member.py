"""A node's part in one pool: brings the memory to what the API says, step by step, and tells how far it is.

A step looks at everything anew, does what can be done now, and ends. It can be cut off at any instruction and repeated at
any time; nothing that it needs to know is remembered but the nonce of this memory, so that an agent that is killed goes on
where the memory and the API are. The writer node is the only one that formats, removes, and writes layouts.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from gismo_core import node_marker
from gismo_deviceplugin.pool import succession
from gismo_deviceplugin.pool.label import (
    AnotherPool,
    Behind,
    Label,
    LabelError,
    LabelRange,
    Layout,
    NodeLine,
    NotASuccessor,
    State,
    check_pool,
)
from gismo_deviceplugin.pool.lanes import Lanes, SilentHost, Store
from gismo_deviceplugin.pool.medium import Holders, Medium, NotThere, Unfit
from gismo_deviceplugin.pool.proof import PATIENCE_S, Nonces, Proof
from gismo_deviceplugin.pool.records import TooNew
from gismo_deviceplugin.pool.state import StateDirectories
from gismo_deviceplugin.pool.succession import HostIdTaken, Waiting
from gismo_deviceplugin.pool.view import PoolView, RangeView, Source

logger = logging.getLogger("gismo.agent")

_FAILURES = 32  # as many as the API takes
_HOLDERS = 8

Media = Callable[[Source], Medium]
NonceOf = Callable[[str, str], str]  # of a pool, and of what tells its memory from any other: Nonces.of


@dataclass(frozen=True, slots=True)
class Failure:
    """What does not work. namespace: of the Gismo namespace, or empty for the pool itself."""

    namespace: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A range that was given up by force, as the pool label has it; and who uses it here."""

    namespace: str
    store_uuid: str
    offset_bytes: int
    size_bytes: int
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """A container that has a share and does not use it: nothing of the pool's, so nothing of it fails."""

    namespace: str
    holder: str
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
    strangers: tuple[str, ...] = ()  # of the writer: nodes that do not see its memory
    refused: frozenset[str] = frozenset()  # store UUIDs of ranges that the pool label never takes; of the writer
    quarantined: tuple[Quarantined, ...] = ()
    taken_host_id: int | None = None  # ours, and the pool label has it as another node's
    not_loaded: tuple[NotLoaded, ...] = ()
    silent: tuple[SilentHost, ...] = ()


class Member:
    """This node in one pool."""

    def __init__(
        self,
        state: StateDirectories,
        holders: Holders,
        media: Media,
        boot_id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        beat: Callable[..., object] = lambda *_: None,
        patience_s: float = PATIENCE_S,
        nonce_of: NonceOf | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        """beat: called while something goes on that takes long. patience_s: how late what other nodes say may be."""
        self._state = state
        self._beat = beat
        self._holders = holders
        self._boot_id = boot_id or node_marker.boot_id()
        self._media = media
        self._proof = Proof(self._boot_id, clock, patience_s)
        self._lanes = lanes or Lanes(self._boot_id, clock)
        self._nonce_of = nonce_of or Nonces(state.root, self._boot_id).of

    def step(self, view: PoolView) -> Report:
        """As far as it goes now."""
        report = Report(None, None, self._boot_id, None, None)
        in_use = {one.namespace: who for one in view.ranges if (who := self._holders(one.store_uuid))}
        report = replace(report, in_use={name: who[:_HOLDERS] for name, who in in_use.items()})
        memory = self._media(view.source)
        try:
            memory.check()
            for one in view.ranges:
                if one.state in (State.RELEASING, State.QUARANTINED) and one.namespace not in in_use:
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
        except AnotherPool as error:
            return replace(report, failures=(Failure("", "PoolsOverlap", str(error)),))
        except Behind as error:
            # Said, so that the operator goes on from there.
            failure = Failure("", "LayoutConflict", str(error))
            return replace(report, layout_version=error.held, failures=(failure,))
        except NotASuccessor as error:
            return replace(report, failures=(Failure("", "LayoutConflict", str(error)),))
        except HostIdTaken as error:
            failures = (Failure("", "HostIdTaken", str(error)),)
            return replace(report, taken_host_id=view.me.host_id, failures=failures)
        except LabelError as error:
            return replace(report, same_memory=False, failures=(Failure("", "NotTheSameMemory", str(error)),))
        finally:
            file.close()

    # ---- the label -------------------------------------------------------------------------------

    def _with_label(self, view: PoolView, memory: Medium, label: Label, report: Report) -> Report:
        me = view.me
        succession.check_seen(view, self._boot_id)
        if memory.is_resizable and label.has_other_size():
            self._resize(view, memory, label)
        if label.identity() is None:
            if not me.writer:
                nothing = self._proof.of_nothing(view, one_kernel=memory.one_kernel)
                if nothing.same is False:
                    raise LabelError(nothing.why)
                raise Waiting("the writer node has to format the pool")
            memory.check_blank()
            label.format(str(uuid.uuid4()))
        layout, refused = self._layout(view, memory, label)
        self._check_host_id(view, memory, label, layout)
        nonce = self._nonce_of(view.pool, memory.label_key())
        verdict = self._proof.look(view, label, nonce, one_kernel=memory.one_kernel)
        line = NodeLine(me.host_id, me.node, self._boot_id, nonce, layout.version, verdict.seen)
        if label.line(me.host_id) != line:
            label.write_line(line)
        report = replace(
            report,
            layout_version=layout.version,
            nonce=nonce,
            same_memory=verdict.same,
            strangers=verdict.strangers,
            # The operator gives up at once what is refused: so it is said of memory that is the pool's for certain.
            refused=refused if verdict.confirmed else frozenset(),
        )
        if verdict.same is False:
            # Nor is the capacity of another memory to become the pool's.
            return replace(report, capacity_bytes=None, failures=(Failure("", "NotTheSameMemory", verdict.why),))
        return self._ranges(view, memory, label, layout, report, refused)

    def _resize(self, view: PoolView, memory: Medium, label: Label) -> None:
        """The pool was made anew with another capacity: docs/pool-label.md."""
        held = label.layout()
        if held is not None:
            check_pool(held, view.pool)
        if not view.me.writer:
            other = self._proof.of_another_size(view, one_kernel=memory.one_kernel)
            if other.same is False:
                raise LabelError(other.why)
            raise Waiting("the writer node has to write the new capacity into the pool label")
        label.resize()

    def _layout(self, view: PoolView, memory: Medium, label: Label) -> tuple[Layout, frozenset[str]]:
        """The layout that holds, and what it refused. The writer makes it what the API says; the others wait until it knows their ranges."""
        held = label.layout()
        if held is not None:
            check_pool(held, view.pool)
        if not view.me.writer:
            if held is None:
                raise Waiting("the writer node has to write the layout")
            return held, frozenset()
        for one in succession.abandoned(held, view) if held is not None else ():
            if one.state is State.ZEROING:  # whoever wrote that may have died before it did it
                try:
                    self._zero(memory, label, one)
                except (Unfit, OSError) as error:
                    logger.warning("pool %s: what was %s's is not zeroed yet: %s", view.pool, one.namespace, error)
                held = label.layout()
        decided = succession.decide(held, view, label.size_bytes)
        if decided.layout != held:
            label.write_layout(decided.layout)
        return decided.layout, decided.refused

    def _check_host_id(self, view: PoolView, memory: Medium, label: Label, layout: Layout) -> None:
        """Does the pool label have it as this node's? Where not, it is asked first whether it is the pool's label at all."""
        try:
            succession.check_host_id(layout, view.me)
        except (HostIdTaken, Waiting) as error:
            if view.me.writer:
                raise
            found = self._proof.finds_the_writer(view, label, layout.version, one_kernel=memory.one_kernel)
            if found.same is False:
                raise LabelError(found.why) from error
            if found.same is None:
                raise Waiting("the writer node has not shown yet that it sees this memory") from error
            raise

    # ---- the ranges ------------------------------------------------------------------------------

    def _ranges(
        self,
        view: PoolView,
        memory: Medium,
        label: Label,
        layout: Layout,
        report: Report,
        refused: frozenset[str],
    ) -> Report:
        known = {one.store_uuid: one for one in layout.ranges}
        memory.drop_all_but(frozenset(known) | {one.store_uuid for one in view.ranges}, self._holders)
        uncarved = self._carve(view, memory, known)
        ready: dict[str, Store] = {}
        waiting, released = [], set()
        failures: list[Failure] = []
        for one in view.ranges:
            self._beat()
            in_label = known.get(one.store_uuid)
            if one.store_uuid in refused:
                continue
            try:
                if one.state in (State.RELEASING, State.QUARANTINED):
                    in_use = one.namespace in report.in_use
                    if in_label is not None and in_label.state is State.QUARANTINED:
                        continue  # below
                    if one.state is State.QUARANTINED and in_label is not None and not in_label.state.is_end:
                        raise Waiting("the writer node has to write into the pool label that it is given up by force")
                    if self._release(view, memory, label, one.store_uuid, in_label, one.coherence, in_use=in_use):
                        released.add(one.store_uuid)
                elif in_label is None:
                    raise Waiting("the writer node has to write it into the pool label")
                elif one.state is State.ACTIVE:
                    if one.store_uuid in uncarved:
                        raise uncarved[one.store_uuid]
                    store = self._make_ready(view, memory, label, in_label, one)
                    if report.same_memory is not True:
                        raise Waiting("the writer node has not shown yet that it sees this memory")
                    ready[one.namespace] = store
            except (Waiting, NotThere):
                waiting.append(one.namespace)
            except (Unfit, ValueError, OSError) as error:
                failures.append(_failure(one.namespace, "StoreNotReady", error))
        quarantined = []
        for each in succession.abandoned(layout, view):
            who = self._holders(each.store_uuid) or memory.users(each.store_uuid)
            quarantined.append(
                Quarantined(each.namespace, each.store_uuid, each.offset_bytes, each.size_bytes, who[:_HOLDERS])
            )
            if each.state is not State.QUARANTINED:
                continue
            try:
                # Of what coherence it was nobody knows any more: so the caches are cared for.
                if self._release(view, memory, label, each.store_uuid, each, "software", in_use=bool(who)):
                    released.add(each.store_uuid)
            except (Waiting, Unfit, OSError) as error:
                logger.warning("pool %s: what was %s's is not given back yet: %s", view.pool, each.namespace, error)
        return replace(
            report,
            quarantined=tuple(quarantined),
            ready=tuple(ready),
            silent=self._lanes.silent(view, ready),
            waiting=tuple(waiting),
            failures=tuple(failures[:_FAILURES]),
            released=frozenset(released),
        )

    def _carve(self, view: PoolView, memory: Medium, known: Mapping[str, LabelRange]) -> Mapping[str, Unfit]:
        """All that is used or is to be used here, at once."""
        active = [one for one in view.ranges if one.state is State.ACTIVE]
        ranges = [known[one.store_uuid] for one in active if one.store_uuid in known]
        ranges = [one for one in ranges if one.state.is_used]
        return memory.carve(ranges, active[0].coherence, self._beat) if ranges else {}

    def _make_ready(self, view: PoolView, memory: Medium, label: Label, in_label: LabelRange, one: RangeView) -> Store:
        if not in_label.state.is_used:
            raise ValueError(
                f"the range of {one.namespace} was given up, and the API has it as active: it is not used again"
            )
        try:
            if view.me.writer and not in_label.formatted:
                memory.format(in_label, one.coherence, self._beat)
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
        folder = self._state.make(one.store_uuid, view.me.host_id)
        store = Store(one.namespace, one.store_uuid, memory.path(one.store_uuid), folder)
        self._lanes.come_home(store, view.me.host_id)  # before a container may look for it
        self._state.mark(one.store_uuid, view.me.host_id)
        return store

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
        self,
        view: PoolView,
        memory: Medium,
        label: Label,
        store_uuid: str,
        in_label: LabelRange | None,
        coherence: str,
        *,
        in_use: bool,
    ) -> bool:
        """Is it not used here any more; and on the writer node: zeroed, after all others have said so?"""
        if in_use:
            return False
        self._state.remove(store_uuid)
        if in_label is None:
            return True  # what is not in the label was never formatted, and never will be
        memory.release(in_label, coherence, self._beat)
        if not view.me.writer or in_label.state is State.ZEROED:
            return True
        if not all(succession.has_released(other, store_uuid) for other in view.others):
            return False
        self._zero(memory, label, in_label)
        return True

    def _zero(self, memory: Medium, label: Label, one: LabelRange) -> None:
        """By the writer, when all others have released it."""
        self._change(label, one.store_uuid, lambda there: replace(there, state=State.ZEROING))
        memory.zero(one, self._beat)
        self._change(label, one.store_uuid, lambda there: replace(there, state=State.ZEROED))


def _failure(namespace: str, reason: str, error: Exception) -> Failure:
    """reason: where the error itself has none."""
    return Failure(namespace, getattr(error, "reason", None) or reason, str(error))
