"""What one process has of one Ray cluster and one store: the store, its tokens, and the thread that looks after them.

A token is an ObjectRef that a descriptor carries nested; a record lives as long as somebody refers to its token. (What
ray.put makes needs none: its own ObjectRef is always at hand where its value is read.) Own tokens are this process's,
for what it passes by value. Leased ones are the keeper's, for what a task returns: a return outlives the worker that
made it. Both are made in batches ahead of need, because nothing on the way of a value may wait for another process.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, NamedTuple

import gismo_core
from gismo_core import errors
from gismo_core.ray import clusters, compat, keeping, record
from gismo_core.ray.compat import Internals

logger = logging.getLogger("gismo.ray")

_FIRST_TOKENS = 32
_MOST_TOKENS = 256
_LEASE_TIMEOUT_S = 30.0
_FIRST_LEASE_WAIT_S = 0.1
_RETRY_S = 1.0
_NO_ACTOR = b"\xff" * 16
OFF = "the integration with Ray is off: %s"
_ANSWER_S = 1.0  # how soon the reference of a call that was answered is dropped, lest it shows in `ray memory`
# How long own tokens wait for a value, likewise; without them the next value costs half a millisecond more.
_IDLE_S = 2.0


class Identity(NamedTuple):
    """Who this process is to Ray; binary IDs."""

    cluster: bytes
    worker: bytes
    node: bytes
    is_worker: bool  # executes tasks; a driver does not


class Notes:
    """Each note once per process: what was set must be seen, not drown the log."""

    level: ClassVar[int] = logging.INFO
    _said: ClassVar[set[str]] = set()

    @classmethod
    def once(cls, topic: str, message: str, *arguments: object) -> None:
        """Log `message` unless one of this topic was logged already."""
        if topic not in cls._said:
            cls._said.add(topic)
            logger.log(cls.level, "Gismo: " + message, *arguments)


class Warnings(Notes):
    """The same for warnings: a fallback must be seen."""

    level = logging.WARNING


class _Pool:
    """Tokens that are ready. How many are wanted grows when there were none; a look costs next to nothing."""

    __slots__ = ("taken_at", "tokens", "wanted")

    def __init__(self, wanted: int) -> None:
        self.tokens: deque[Any] = deque()
        self.wanted = wanted
        self.taken_at = 0.0

    def take(self) -> Any | None:
        self.taken_at = time.monotonic()
        try:
            return self.tokens.popleft()
        except IndexError:
            self.wanted = min(_MOST_TOKENS, max(_FIRST_TOKENS, self.wanted * 2))
            return None

    def low(self) -> bool:
        return len(self.tokens) * 2 < self.wanted

    def missing(self) -> int:
        return self.wanted - len(self.tokens)

    def drop_if_idle(self) -> None:
        """As at the beginning, if nobody has wanted one for a while."""
        if self.tokens and time.monotonic() - self.taken_at >= _IDLE_S:
            self.wanted = 0
            self.tokens.clear()


class Session:
    """Made when Ray is connected; one at a time, see current()."""

    def __init__(self, internals: Internals, store: gismo_core.Store) -> None:
        self.internals = internals
        self.store = store
        worker = internals.worker_module.global_worker
        self._worker = worker
        self.core_worker = worker.core_worker
        self.identity = Identity(
            cluster=worker.node.cluster_id.binary(),
            worker=self.core_worker.get_worker_id().binary(),
            node=self.core_worker.get_current_node_id().binary(),
            is_worker=worker.mode == internals.worker_mode,
        )
        cluster = self.identity.cluster.hex()
        self._witness = clusters.Witness(store, clusters.Presence(cluster, store.host_id, worker.gcs_client.address))
        self.keeper: Any = None  # its actor handle, once there
        self.is_keeper = False
        self._own = _Pool(wanted=0)
        self._leased = _Pool(wanted=_FIRST_TOKENS)
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._woken = False
        self._lent_once = threading.Event()
        # A worker has no runtime environment before its first task (and often no job), and a thread of it that submits
        # anything until then is the end of the process: a check of Ray's own. That the job is known says nothing: a
        # worker may learn it at its start.
        self._may_submit = threading.Event()
        if not self.identity.is_worker:
            self._may_submit.set()
        self._proposed = False
        self._full = False
        self._let_go: deque[bytes] = deque()  # raw handles of returns that were read here, and are not held any more
        self._last_call: Any = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="gismo-ray", daemon=True)

    def start(self) -> None:
        """Begin to look after tokens."""
        self._thread.start()

    def end(self) -> None:
        """Ray is being disconnected."""
        self._over.set()
        self._may_submit.set()
        self.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=2.0)
        self._own.tokens.clear()
        self._leased.tokens.clear()
        self._witness.close()

    # ---- tokens ----------------------------------------------------------------------------------

    def own_token(self) -> Any:
        """A token that belongs to this process: ready-made, else made now, which takes half a millisecond."""
        token = self._own.take()
        if self._own.low():
            self.wake()
        return self._watch(self._worker.put_object(b"")) if token is None else token

    def leased_token(self) -> Any | None:
        """A token of the keeper, or None if none was leased yet or all are used up."""
        if not self._leased.tokens and not self._lent_once.is_set():
            self._lent_once.wait(_FIRST_LEASE_WAIT_S)  # once: the first task of a worker begins when the worker does
            self._lent_once.set()
        token = self._leased.take()
        if self._leased.low():
            self.wake()
        return token

    def put_back(self, token: Any, kind: record.Kind) -> None:
        """A token that was not used after all."""
        (self._leased if kind is record.Kind.RETURN else self._own).tokens.append(token)

    def propose_when_gone(self, reference: Any) -> None:
        """Wake the keeper when nobody refers to this object of ours any more."""
        self._watch(reference)

    def _watch(self, token: Any) -> Any:
        self.core_worker.add_object_out_of_scope_callback(token, self._on_out_of_scope)
        return token

    def _on_out_of_scope(self, _: bytes) -> None:
        self._proposed = True
        self.wake()

    def let_go(self, raw_handle: bytes) -> None:
        """A return that was read here is held no more: it was delivered, and may be free now."""
        self._let_go.append(raw_handle)
        self.wake()

    # ---- freeing: this process only proposes -----------------------------------------------------

    def pool_is_full(self) -> None:
        """Ask for whatever can be freed, now."""
        self._full = True
        self.wake()
        with contextlib.suppress(Exception):
            self.core_worker.global_gc()

    # ---- the thread ------------------------------------------------------------------------------

    def _look_after(self) -> None:
        self._may_submit.wait()
        retry_at = 0.0
        while not self._over.is_set():
            with contextlib.suppress(Empty):
                self._wakes.get(timeout=self._patience_s(retrying=retry_at > 0))
            self._woken = False  # before the work: what comes from here on asks for another round
            if self._over.is_set():
                return
            try:
                if retry_at <= time.monotonic():
                    retry_at = 0.0
                    self._with_keeper()
            except compat.UnsupportedRay as error:
                _give_up(self, error)
                return
            except Exception as error:  # noqa: BLE001 - whatever Ray raises while it starts, restarts a keeper, or ends
                if self._over.is_set():
                    return
                logger.debug("Gismo: the keeper does not answer: %s", error)
                if isinstance(error, self.internals.ray.exceptions.ActorDiedError):
                    self.keeper = self._last_call = None
                    self._proposed = True  # whatever was said to it is lost
                retry_at = time.monotonic() + _RETRY_S

    def _patience_s(self, *, retrying: bool) -> float | None:
        if retrying:
            return _RETRY_S
        if self._last_call is not None:
            return _ANSWER_S
        return _IDLE_S if self._own.tokens else None

    def _with_keeper(self) -> None:
        if self.is_keeper:
            return
        self._own.drop_if_idle()
        if self.keeper is None:
            self.keeper = keeping.find_or_make(self)
        self._notice_a_dead_keeper()
        if self._full:
            self._full = False
            self._last_call = self.keeper.full.remote()
        if self._proposed or self._let_go:
            self._proposed = False
            delivered = [self._let_go.popleft() for _ in range(len(self._let_go))]
            self._last_call = self.keeper.poke.remote(delivered)
        if self._own.low():
            for token in keeping.references(self.keeper, self._own.missing()):
                self._own.tokens.append(self._watch(token))
        if self.identity.is_worker and self._leased.low():
            lent = self.internals.ray.get(self.keeper.lease.remote(self._leased.missing()), timeout=_LEASE_TIMEOUT_S)
            self._leased.tokens.extend(lent)
            self._lent_once.set()

    def _notice_a_dead_keeper(self) -> None:
        """Raises if the keeper is dead for good, or was when it was last called; the next round finds or makes another."""
        if self._last_call is None:
            return
        ray = self.internals.ray
        done, _ = ray.wait([self._last_call], timeout=0)
        if done:
            self._last_call = None
            ray.get(done)

    def wake(self) -> None:
        """Let the thread look now. Takes no lock: finalizers call it, in the middle of anything."""
        if not self._woken:
            self._woken = True
            self._wakes.put(None)

    def task_begins(self) -> None:
        """A task is about to run here: Ray has set what a submission from this process takes over from it."""
        self._may_submit.set()


class _Current:
    session: Session | None = None
    reader: gismo_core.Store | None = None  # where a value was read before or without a session
    failed: str | None = None  # why there is no store
    lock = threading.RLock()
    pid = os.getpid()


def current() -> Session | None:
    """The session of this process, or None where Ray is not connected or there is no store."""
    return _Current.session


def begin(internals: Internals) -> None:
    """Ray has connected: open the store and start. Never raises: without a store Ray works as always."""
    with _Current.lock:
        end()
        _Current.failed = None
        store = open_store()
        if store is None:
            from gismo_core.ray import without

            without.install(internals)
            return
        try:
            if internals.worker_module.global_worker.mode != internals.worker_mode:
                compat.check_tables()  # a worker, of which there are many, looks when it finds no keeper
            session = Session(internals, store)
        except compat.UnsupportedRay as error:
            Warnings.once("ray", OFF, error)
            return
        except Exception as error:  # noqa: BLE001 - an unknown Ray must not break a user's program
            Warnings.once("session", "the integration with Ray is off in this process: %s", error)
            return
        _Current.session = session
        session.start()
        session.wake()  # a driver has the keeper made, a worker gets its first tokens


def _give_up(session: Session, error: compat.UnsupportedRay) -> None:
    """There is no keeper and cannot be one: from now on Ray's own way. What was written is read, and freed by nobody."""
    Warnings.once("ray", OFF, error)
    with _Current.lock:
        if _Current.session is session:
            _Current.session = None


def end() -> None:
    """Ray is being disconnected, or connects anew."""
    session, _Current.session = _Current.session, None
    if session is not None:
        session.end()


def open_store() -> gismo_core.Store | None:
    """The store of $GISMO_STORE, opened once per process; None, with one warning, where that fails."""
    with _Current.lock:
        if _Current.reader is not None:
            return _Current.reader
        if _Current.failed is not None:
            return None
        try:
            _Current.reader = gismo_core.open()
        except errors.GismoError as error:
            _Current.failed = f"{type(error).__name__}: {error}"
            Warnings.once(
                "store",
                "GISMO_STORE=%s cannot be opened, so this process keeps its objects in Ray's own store and reads others' by a bridge: %s "
                "(`gismo ray check` says more)",
                os.environ.get("GISMO_STORE", ""),
                _Current.failed,
            )
        return _Current.reader


def forget_store() -> None:
    """The next to ask opens the store anew: GISMO_STORE was changed. What was read stays mapped."""
    with _Current.lock:
        _Current.reader = _Current.failed = None


def failure() -> str | None:
    """Why this process has no store, or None."""
    return _Current.failed


class Hold:
    """Keeps a token (or other references) for as long as the buffers that were read with it.

    In a forked child it is kept for ever: dropping it would speak for the parent on the parent's connections.
    """

    __slots__ = ("pid", "token")
    _immortal: ClassVar[list[Any]] = []
    # Not by the module's name for it, which is None where the interpreter has ended the module before the last buffer.
    _current: ClassVar[type[_Current]] = _Current

    def __init__(self, token: Any) -> None:
        self.token = token
        self.pid = _Current.pid

    def __del__(self) -> None:
        if self.pid != self._current.pid:
            self._immortal.append(self.token)


class ReadHold(Hold):
    """The same for what was read from the store here, of which the keeper is told when it is let go."""

    __slots__ = ("raw_handle",)

    def __init__(self, token: Any, raw_handle: bytes) -> None:
        super().__init__(token)
        self.raw_handle = raw_handle

    def __del__(self) -> None:
        super().__del__()
        if self.pid == self._current.pid and (here := self._current.session) is not None:
            here.let_go(self.raw_handle)


def _after_fork_in_child() -> None:
    _Current.pid = os.getpid()
    _Current.session = None
    _Current.lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(end)


def header(
    session: Session, kind: record.Kind, form: record.Form, token: Any, foreign: tuple[bytes, ...]
) -> record.Header:
    """The header of a record that this process makes now."""
    core_worker = session.core_worker
    actor = core_worker.get_actor_id().binary()
    identity = session.identity
    return record.Header(
        kind=kind,
        form=form,
        cluster=identity.cluster,
        token=token,
        task=core_worker.get_current_task_id().binary(),
        worker=identity.worker,
        node=identity.node,
        job=core_worker.get_current_job_id().binary(),
        actor=bytes(16) if actor == _NO_ACTOR else actor,
        name=core_worker.get_current_task_name() or "",
        foreign=foreign,
    )
