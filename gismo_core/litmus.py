"""Tests of what is assumed of the hardware (A1 to A3 of FORMAT.md), between two hosts, or two processes of one machine.

Each side has an object of its own in the store, writes there also after the seal, which can hurt only itself, and reads the other's through a view. So
each line has one writing host, and nothing of anybody else's is touched. The tests are loops in C (native/litmus.c); here is how two sides find each
other and agree on what is run, by words in the same objects:

    both        BEAT moves for as long as the side lives
    higher host PROPOSED := the lowest host's nonce ───▶ lower host ACCEPTED := the proposer's nonce      (final: now they are a pair)
    lower host  what is run ───▶ both PHASE := ready ───▶ test ───▶ counts, PHASE := counted ───▶ the next test
    both        FAREWELL: done, or left early
"""

from __future__ import annotations

import ctypes
import enum
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from gismo_core import _native, errors
from gismo_core._buffers import hold
from gismo_core.errors import NameNotFound, NameTaken, ObjectGone, PartnerLost, PartnerMissing, StoreBusy
from gismo_core.handles import Handle
from gismo_core.records import LITMUS_MOST, LITMUS_TESTS, HostInfo, LitmusOutcome, LitmusVerdict, litmus_verdict
from gismo_core.store import Store
from gismo_core.views import View

ROUNDS = 10**8
EMULATED_LIMIT_S = 10.0  # of each test where its outcome means nothing
SILENCE_S = 10.0  # a side of which nothing has come for as long is dead or stopped
_STALLED_S = 60.0  # its words come, but not those of the test
_FRESH_S = 3.0  # of somebody who waits for a partner, and moves his beat twenty times in that
_SLICE_NS = 100_000_000
_POLL_S = 0.05
_GONE_S = 3.0  # how long is waited for the own object's bytes to be free again
_FILE, _ONE_MACHINE = 1, 2  # GISMO_LITMUS_FILE, GISMO_LITMUS_ONE_MACHINE
_NEVER_DIRTIED = 2
_LOCKSTEP = (0, _NEVER_DIRTIED)  # A1.dekker, A2.never_dirtied
_TESTS = len(LITMUS_TESTS)


class _Word(enum.IntEnum):
    """Of an area, by gismo_litmus_say and gismo_litmus_hear."""

    BEAT = 0
    NONCE = 1
    PROPOSED = 2
    ACCEPTED = 3
    PHASE = 4
    FAREWELL = 5
    ROUNDS = 8
    LIMIT_MS = 9
    TESTS = 10
    DONE = 12
    VIOLATIONS = 16
    CONTENDED = 20


_LEFT_EARLY, _DONE_WELL = 1, 2


class Watcher(Protocol):
    """Is told how far it is. What it raises ends the run."""

    def waiting(self, seconds: float) -> None:
        """For a partner, for so long by now."""

    def testing(self, name: str, share: float) -> None:
        """0 to 1 of this test is done."""


@dataclass(frozen=True, slots=True)
class Count:
    """What one test came to. `rounds` of each side. `contended`: rounds in which the two came so close together that only the assumption kept
    them right; what exactly that is depends on the test (docs/coherence.md)."""

    name: str
    rounds: int
    violations: int
    contended: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """Outcome of a run. `recorded`: the verdict stands in this host's lane, in place of the one before."""

    host_id: int
    verdict: LitmusVerdict
    tests: tuple[Count, ...]
    recorded: bool

    @property
    def violated(self) -> bool:
        return any(one.violations for one in self.tests)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run: the lower host's wish. limit_s: of each test; None: as its outcome is meaningful or not."""

    rounds: int = ROUNDS
    limit_s: float | None = None
    tests: tuple[str, ...] = LITMUS_TESTS


def run(
    store: Store, *, session: str = "", plan: Plan, wait_s: float, watcher: Watcher, flawed: bool = False
) -> Report:
    """Find the partner of this session, run the tests with it, and write the verdict into this host's lane.

    flawed: this side does what the assumptions rule out, to test the tests (not of A2.never_dirtied: that would need to write into the other's object).

    Errors: PartnerMissing (nobody came within wait_s), PartnerLost, StoreBusy (this host is at it already), StoreFull.
    """
    with _own_area(store, session) as own, _meet(store, session, own, wait_s, watcher) as other:
        pair = _Pair(store, own, other)
        facts = _facts(store, own.host_id, other.host_id)
        agreed = pair.agree(plan, emulated=facts.reasons != 0)
        counts = tuple(pair.test(name, agreed, watcher, flawed) for name in agreed.tests)
        pair.part()
    verdict = _verdict(counts, other.host_id, facts)
    before = facts.own.litmus
    recorded = facts.reasons == 0 or before is None or before.outcome == LitmusOutcome.NOT_MEANINGFUL
    if recorded:
        store._slow("litmus_record", verdict)
    return Report(own.host_id, litmus_verdict(verdict), counts, recorded)


# ---- the two areas ---------------------------------------------------------------------------------


class _Own:
    """This side's area, and the object that it is."""

    def __init__(self, store: Store, handle: Handle, memory: ctypes.Array[ctypes.c_char], host_id: int) -> None:
        self._library = store._native.library
        self._native = store._native
        self._beats = 0
        self.handle = handle
        self.memory: ctypes.Array[ctypes.c_char] | None = memory
        self.address = ctypes.addressof(memory)
        self.host_id = host_id
        self.nonce = secrets.randbits(62) | 1
        self.say(_Word.NONCE, self.nonce)

    def say(self, word: int, value: int) -> None:
        status = self._library.slow.litmus_say(self.address, word, value)
        if status:
            raise self._library.error(status)

    def beat(self) -> None:
        self._beats += 1
        self.say(_Word.BEAT, self._beats)


class _Other:
    """The other side's area, by a view; it stays readable also when the other has deleted it."""

    def __init__(self, store: Store, host_id: int, view: View) -> None:
        self._library = store._native.library
        self._view = view
        self._held = hold(view)
        self.handle = view.handle
        self.host_id = host_id
        self.address: int = self._held.buf
        self._beat = self.hear(_Word.BEAT)
        self._moved_s: float | None = None
        self.nonce = self.hear(_Word.NONCE)

    def hear(self, word: int) -> int:
        value = ctypes.c_uint64()
        status = self._library.slow.litmus_hear(self.address, word, value)
        if status:
            raise self._library.error(status)
        return value.value

    def silent_s(self) -> float | None:
        """For how long its beat has not moved; None: it was never seen to."""
        beat, now_s = self.hear(_Word.BEAT), time.monotonic()
        if beat != self._beat:
            self._beat, self._moved_s = beat, now_s
        return None if self._moved_s is None else now_s - self._moved_s

    def release(self) -> None:
        if self.address:
            self.address = 0
            _native.py_release_buffer(self._held)
            self._view.release()


def _name(session: str, host_id: int) -> str:
    return f"gismo.litmus.{session}.{host_id}"


@contextmanager
def _own_area(store: Store, session: str) -> Iterator[_Own]:
    host_id = store.host_id
    own = _make_area(store, _name(session, host_id), host_id)
    farewell = _LEFT_EARLY
    try:
        yield own
        farewell = _DONE_WELL
    finally:
        try:
            own.say(_Word.FAREWELL, farewell)
        finally:
            own.memory = None
            _delete(store, own.handle)
            _wait_until_gone(store, own.handle)


def _make_area(store: Store, name: str, host_id: int) -> _Own:
    for _ in range(3):
        try:
            with store.create(_native.LITMUS_BYTES, name=name) as draft:
                memory = (ctypes.c_char * _native.LITMUS_BYTES).from_buffer(draft.buffer)
                status = store._native.library.slow.litmus_begin(ctypes.addressof(memory))
                if status:
                    raise store._native.library.error(status)
                return _Own(
                    store, draft.seal(), memory, host_id
                )  # the array stays: its bytes can be written, and are pinned
        except NameTaken:
            _remove_stale(store, name, host_id)
    raise StoreBusy(f"others make and delete objects called {name!r} on this host: try again")


def _remove_stale(store: Store, name: str, host_id: int) -> None:
    """What a side left that was killed. One that lives is told by its beat."""
    try:
        left = _Other(store, host_id, store.get(store.lookup(name)))
    except (NameNotFound, ObjectGone):
        return
    try:
        end_s = time.monotonic() + _FRESH_S
        while time.monotonic() < end_s:
            if left.silent_s() is not None:
                raise StoreBusy(
                    "`gismo litmus` runs on this host already: wait until it is done, or name another --session"
                )
            time.sleep(_POLL_S)
    finally:
        left.release()
    _delete(store, left.handle)


def _delete(store: Store, handle: Handle) -> None:
    try:
        store.delete(handle)
    except ObjectGone:
        pass


def _wait_until_gone(store: Store, handle: Handle) -> None:
    """Until its bytes are free: the partner's pin goes on request, for which both sides must still be there."""
    end_s = time.monotonic() + _GONE_S
    while time.monotonic() < end_s:
        cursor, raw = ctypes.c_uint64(handle.slot), _native.CObjectInfo()
        if store._next(cursor, raw) or (raw.handle.slot, raw.handle.generation) != (handle.slot, handle.generation):
            return
        time.sleep(0.01)


# ---- finding each other ----------------------------------------------------------------------------


@contextmanager
def _meet(store: Store, session: str, own: _Own, wait_s: float, watcher: Watcher) -> Iterator[_Other]:
    others: dict[int, _Other] = {}
    try:
        partner = _find_partner(store, session, own, others, wait_s, watcher)
        for other in others.values():
            if other is not partner:
                other.release()
        try:
            yield partner
        except PartnerLost:
            _delete(store, partner.handle)  # it may not be able to any more
            raise
    finally:
        for other in others.values():
            other.release()


def _find_partner(
    store: Store, session: str, own: _Own, others: dict[int, _Other], wait_s: float, watcher: Watcher
) -> _Other:
    begin_s = time.monotonic()
    proposed: _Other | None = None
    while True:
        own.beat()
        _look_around(store, session, own.host_id, others)
        living = [others[host] for host in sorted(others) if _is_fresh(others[host])]
        if proposed is not None:
            accepted = proposed.hear(_Word.ACCEPTED)
            if accepted == own.nonce:
                return proposed
            if accepted or proposed not in living:  # another was first, or it is gone
                own.say(_Word.PROPOSED, 0)
                proposed = None
        if proposed is None:
            for other in living:
                if other.host_id < own.host_id and not other.hear(_Word.ACCEPTED):
                    own.say(_Word.PROPOSED, other.nonce)
                    proposed = other
                    break
                if other.host_id > own.host_id and other.hear(_Word.PROPOSED) == own.nonce:
                    own.say(_Word.ACCEPTED, other.nonce)
                    return other
        waited_s = time.monotonic() - begin_s
        if waited_s >= wait_s:
            raise PartnerMissing(
                f"no other host came within {wait_s:g} s: run `gismo litmus` with the same store on a second host at the same time, "
                "or with --alone, which runs both sides here"
            )
        watcher.waiting(waited_s)
        time.sleep(_POLL_S)


def _is_fresh(other: _Other) -> bool:
    silent_s = other.silent_s()
    return silent_s is not None and silent_s < _FRESH_S


def _look_around(store: Store, session: str, host_id: int, others: dict[int, _Other]) -> None:
    """Who else of this session is there now, by host id; those that were deleted are let go."""
    for host in range(store.info.max_hosts):
        if host == host_id:
            continue
        known = others.get(host)
        try:
            handle = store.lookup(_name(session, host))
            if known is not None and known.handle == handle:
                continue
            view = store.get(handle)
        except (NameNotFound, ObjectGone):
            view = None
        if known is not None:
            del others[host]
            known.release()
        if view is not None and view.nbytes == _native.LITMUS_BYTES:
            others[host] = _Other(store, host, view)


# ---- a pair ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Pair:
    """Two sides that have found each other."""

    store: Store
    own: _Own
    other: _Other
    phase: int = field(default=0)

    def agree(self, plan: Plan, emulated: bool) -> Plan:
        """What is run: of the lower host."""
        if self.own.host_id < self.other.host_id:
            limit_s = plan.limit_s if plan.limit_s is not None else EMULATED_LIMIT_S if emulated else 0.0
            self.own.say(_Word.ROUNDS, plan.rounds)
            self.own.say(_Word.LIMIT_MS, round(limit_s * 1000))
            self.own.say(_Word.TESTS, sum(1 << LITMUS_TESTS.index(name) for name in plan.tests))
            self._next_phase()
            return Plan(plan.rounds, limit_s, plan.tests)
        self._next_phase()
        rounds, limit_ms, mask = (self.other.hear(word) for word in (_Word.ROUNDS, _Word.LIMIT_MS, _Word.TESTS))
        if not 1 <= rounds < 2**55 or limit_ms > 10**10 or not 0 < mask < 1 << _TESTS:
            raise PartnerLost(
                f"host {self.other.host_id} asks for tests that make no sense: is it of another version of gismo?"
            )
        return Plan(rounds, limit_ms / 1000, tuple(name for bit, name in enumerate(LITMUS_TESTS) if mask >> bit & 1))

    def test(self, name: str, plan: Plan, watcher: Watcher, flawed: bool) -> Count:
        """One test, of both sides, and what the two counted together."""
        number = LITMUS_TESTS.index(name)
        self._next_phase()
        limit_s = plan.limit_s or 0.0
        this = _native.CLitmus(
            own=self.own.address,
            other=self.other.address,
            rounds=plan.rounds,
            limit_ns=round(limit_s * 1e9),
            test=number,
            flawed=flawed and number != _NEVER_DIRTIED,
        )
        begin_s = time.monotonic()
        self._run(this, lambda: watcher.testing(name, _share(this, limit_s, begin_s)))
        seconds = time.monotonic() - begin_s
        mine = this.done, this.violations, this.contended
        for word, value in zip((_Word.DONE, _Word.VIOLATIONS, _Word.CONTENDED), mine, strict=True):
            self.own.say(word + number, value)
        self._next_phase()
        theirs = tuple(self.other.hear(word + number) for word in (_Word.DONE, _Word.VIOLATIONS, _Word.CONTENDED))
        # In lockstep both judge the same rounds; else each has rounds of its own.
        together = max if number in _LOCKSTEP else lambda two: min(sum(two), 2**64 - 1)
        return Count(
            name, min(mine[0], theirs[0]), together((mine[1], theirs[1])), together((mine[2], theirs[2])), seconds
        )

    def _run(self, this: _native.CLitmus, tell: Callable[[], None]) -> None:
        library, native = self.store._native.library, self.store._native
        while True:
            with native:
                status: int = library.slow.litmus_run(this, _SLICE_NS)
            if status < 0:
                raise PartnerLost(f"the test with host {self.other.host_id} cannot go on: {library.error(status)}")
            self.own.beat()
            tell()
            if status == 1:
                return
            if this.idle_ns > _SLICE_NS:
                self._look_after()
            if this.idle_ns > _STALLED_S * 1e9:
                raise PartnerLost(
                    f"host {self.other.host_id} lives, but for {_STALLED_S:.0f} s nothing that it writes in this test has arrived here: "
                    "flushes of one of the two hosts do not reach the device (A1)"
                )

    def part(self) -> None:
        """Not before the other has read the last counts."""
        self._next_phase()

    def _next_phase(self) -> None:
        self.phase += 1
        self.own.say(_Word.PHASE, self.phase)
        while self.other.hear(_Word.PHASE) < self.phase:
            self.own.beat()
            self._look_after()
            time.sleep(0.001)

    def _look_after(self) -> None:
        """Does the other still live? Who is done says so only when it has seen our last phase."""
        if self.other.hear(_Word.FAREWELL) == _LEFT_EARLY:
            raise PartnerLost(
                f"host {self.other.host_id} ended its side before the tests were over: see what it said there"
            )
        silent_s = self.other.silent_s()
        if silent_s is not None and silent_s > SILENCE_S:
            raise PartnerLost(
                f"nothing has come from host {self.other.host_id} for {SILENCE_S:.0f} s: its process was killed or stopped, or its machine is gone"
            )


def _share(this: _native.CLitmus, limit_s: float, begin_s: float) -> float:
    by_time = (time.monotonic() - begin_s) / limit_s if limit_s else 0.0
    return float(min(1.0, max(this.done / this.rounds, by_time)))


# ---- the verdict -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Facts:
    own: HostInfo
    other: HostInfo
    reasons: int


def _facts(store: Store, own_id: int, other_id: int) -> _Facts:
    hosts = {one.host_id: one for one in store.hosts()}
    own, other = hosts.get(own_id), hosts.get(other_id)
    if own is None or other is None:
        raise errors.CorruptStore("the store does not show the hosts that are at it; run `gismo fsck`")
    reasons = 0 if store.info.is_dax else _FILE
    return _Facts(own, other, reasons | (_ONE_MACHINE if own.boot_id == other.boot_id else 0))


def _verdict(counts: tuple[Count, ...], partner: int, facts: _Facts) -> _native.CLitmusVerdict:
    outcome = LitmusOutcome.VIOLATED if any(one.violations for one in counts) else LitmusOutcome.HOLDS
    verdict = _native.CLitmusVerdict(
        tested_unix_ns=time.time_ns(),
        partner_host=partner,
        outcome=LitmusOutcome.NOT_MEANINGFUL if facts.reasons else outcome,
        reasons=facts.reasons,
    )
    for one in counts:
        number = LITMUS_TESTS.index(one.name)
        verdict.rounds[number] = min(one.rounds, LITMUS_MOST)
        verdict.violations[number] = min(one.violations, LITMUS_MOST)
    verdict.partner_boot_id[:] = facts.other.boot_id.bytes
    return verdict
