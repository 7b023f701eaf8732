"""What one process has of one Ray cluster and one store: the store, its tokens, and the thread that looks after them.

A token is an ObjectRef that a descriptor carries nested. Tokens are leased from the keeper, which makes them cheaply,
in batches ahead of need: nothing on the way of a value may wait for another process. A process that puts or passes by
value and has none at hand makes one of its own, which takes Ray half a millisecond. For what a task returns only a
leased one will do, because a return outlives the worker that made it.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar

import gismo_core
from gismo_core import errors
from gismo_core.ray import clusters, record
from gismo_core.ray.compat import Internals

logger = logging.getLogger("gismo.ray")

_LEASE_FIRST = 8
_LEASE_MOST = 256
_LEASE_TIMEOUT_S = 30.0
_FIRST_LEASE_WAIT_S = 0.1
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Identity:
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
        self._witness = clusters.Witness(
            store, clusters.Presence(cluster, store.stats().lane, worker.gcs_client.address)
        )
        self.keeper: Any = None  # its actor handle, once there
        self.is_keeper = False
        self._leased: deque[Any] = deque()
        self._lease_size = _LEASE_FIRST
        self._wake = threading.Event()
        self._lent_once = threading.Event()
        # A worker has no job before its first task, and a thread of it that asks Ray for anything until then is the
        # end of the process (a check of Ray's own).
        self._job_known = threading.Event()
        if not self.core_worker.get_current_job_id().is_nil():
            self._job_known.set()
        self._proposed = False
        self._full = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="gismo-ray", daemon=True)

    def start(self) -> None:
        """Begin to look after tokens."""
        self._thread.start()

    def end(self) -> None:
        """Ray is being disconnected."""
        self._over.set()
        self._job_known.set()
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=2.0)
        self._leased.clear()
        self._witness.close()

    # ---- tokens ----------------------------------------------------------------------------------

    def token(self, kind: record.Kind) -> Any | None:
        """A token for a new record; None only for a return, if none was leased yet or all are used up."""
        if not self._leased and not self._lent_once.is_set():
            self._lent_once.wait(_FIRST_LEASE_WAIT_S)  # once: the first task of a worker begins when the worker does
            self._lent_once.set()
        try:
            token = self._leased.popleft()
        except IndexError:
            self._lease_size = min(_LEASE_MOST, self._lease_size * 2)
            self._wake.set()
            return None if kind is record.Kind.RETURN else self._make_own()
        if len(self._leased) * 2 < self._lease_size:
            self._wake.set()
        return token

    def put_back(self, token: Any, kind: record.Kind) -> None:
        """A token that was not used after all; an own one is simply dropped."""
        if kind is record.Kind.RETURN:
            self._leased.append(token)

    def _make_own(self) -> Any:
        token = self._worker.put_object(b"")
        self.core_worker.add_object_out_of_scope_callback(token, self._on_out_of_scope)
        return token

    def _on_out_of_scope(self, _: bytes) -> None:
        self._proposed = True
        self._wake.set()

    # ---- freeing: this process only proposes -----------------------------------------------------

    def pool_is_full(self) -> None:
        """Ask for whatever can be freed, now."""
        self._full = True
        self._wake.set()
        with contextlib.suppress(Exception):
            self.core_worker.global_gc()

    # ---- the thread ------------------------------------------------------------------------------

    def _look_after(self) -> None:
        self._job_known.wait()
        retry_at = 0.0
        while not self._over.is_set():
            self._wake.wait(timeout=_RETRY_S if retry_at else None)
            if self._over.is_set():
                return
            self._wake.clear()
            try:
                if retry_at <= time.monotonic():
                    retry_at = 0.0
                    self._with_keeper()
            except Exception as error:  # noqa: BLE001 - whatever Ray raises while it starts, restarts a keeper, or ends
                if self._over.is_set():
                    return
                logger.debug("Gismo: the keeper does not answer: %s", error)
                retry_at = time.monotonic() + _RETRY_S

    def _with_keeper(self) -> None:
        if self.is_keeper:
            return
        if self.keeper is None:
            from gismo_core.ray import keeper

            self.keeper = keeper.find_or_make(self)
        if self._full:
            self._full = self._proposed = False
            self.keeper.full.remote()
        if self._proposed:
            self._proposed = False
            self.keeper.poke.remote()
        missing = self._lease_size - len(self._leased)
        if missing * 2 > self._lease_size:
            lent = self.internals.ray.get(self.keeper.lease.remote(missing), timeout=_LEASE_TIMEOUT_S)
            self._leased.extend(lent)
            self._lent_once.set()

    def wake(self) -> None:
        """Let the thread look now."""
        self._wake.set()

    def has_job(self) -> None:
        """A task is about to run here, so Ray knows this process's job."""
        self._job_known.set()


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
            return
        try:
            session = Session(internals, store)
        except Exception as error:  # noqa: BLE001 - an unknown Ray must not break a user's program
            Warnings.once("session", "the integration with Ray is off in this process: %s", error)
            return
        _Current.session = session
        session.start()
        session.wake()  # a driver has the keeper made, a worker gets its first tokens


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
                "GISMO_STORE=%s cannot be opened, so this process keeps its objects in Ray's own store: %s "
                "(`gismo ray check` says more)",
                os.environ.get("GISMO_STORE", ""),
                _Current.failed,
            )
        return _Current.reader


def failure() -> str | None:
    """Why this process has no store, or None."""
    return _Current.failed


class Hold:
    """Keeps a token for as long as the buffers that were read with it.

    In a forked child the token is kept for ever: dropping it would speak for the parent on the parent's connections.
    """

    __slots__ = ("pid", "token")
    _immortal: ClassVar[list[Any]] = []

    def __init__(self, token: Any) -> None:
        self.token = token
        self.pid = _Current.pid

    def __del__(self) -> None:
        if self.pid != _Current.pid:
            Hold._immortal.append(self.token)


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
        token=token.binary(),
        task=core_worker.get_current_task_id().binary(),
        worker=identity.worker,
        node=identity.node,
        job=core_worker.get_current_job_id().binary(),
        actor=actor if any(byte != 0xFF for byte in actor) else bytes(16),
        name=core_worker.get_current_task_name() or "",
        foreign=foreign,
    )
