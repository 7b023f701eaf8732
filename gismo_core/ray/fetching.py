"""Fetching the bytes of records through a bridge, by helper threads. Unpickles nothing of the user's."""

from __future__ import annotations

import logging
import queue
import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from gismo_core import _buffers, _native
from gismo_core._lifetime import ExporterTypes
from gismo_core.ray import bridge, record
from gismo_core.ray.compat import Internals
from gismo_core.ray.keeping import NAMESPACE, name_of
from gismo_core.ray.record import Form
from gismo_core.ray.session import Hold

logger = logging.getLogger("gismo.ray")

_THREADS = 8
_BRIDGES_FOR_S = 10.0  # how long the keeper's list of bridges is believed
_GIVE_UP_S = 60.0  # of nothing but failures; a bridge that is merely slow is waited for
_PAUSE_S = 0.1
_PAUSE_MOST_S = 2.0
_KEEP_S = 10.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """The buffers of a value: packed, in-band pickle, out-of-band ones. They keep what they lie in."""

    form: Form
    buffers: tuple[memoryview, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a value could not be had. gone: its record is no more."""

    reason: str
    gone: bool = False


@dataclass(slots=True)
class _Work:
    raw: bytes
    token: Any  # keeps the record while it is copied
    future: Future[Fetched | Failed]


class _Kept:
    """A ctypes array over a chunk; "keep" is what the chunk lies in."""

    __slots__ = ()


_exporters = ExporterTypes(_Kept, "keep")


class Fetcher:
    """The helpers of one connection to Ray."""

    def __init__(self, internals: Internals) -> None:
        self._internals = internals
        self._worker = internals.worker_module.global_worker
        self._lock = threading.Lock()
        self._todo: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()  # None: be gone
        self._threads = self._busy = 0
        # One fetch of a record at a time, whoever waits for it.
        self._running: weakref.WeakValueDictionary[bytes, Future[Fetched | Failed]] = weakref.WeakValueDictionary()
        self._kept: set[Future[Fetched | Failed]] = set()
        self._bridges: dict[object, tuple[float, list[Any]]] = {}  # store → (believed until, actors)

    def fetch(self, raw: bytes, token: Any) -> Future[Fetched | Failed]:
        """Begin; the future never holds an exception. Never waits."""
        with self._lock:
            future = self._running.get(raw)
            if future is None or (future.done() and isinstance(future.result(), Failed)):
                future = Future()
                self._running[raw] = future
                self._busy += 1
                if self._busy > self._threads < _THREADS:
                    self._threads += 1
                    threading.Thread(target=self._work_for_ever, name="gismo-fetch", daemon=True).start()
                self._todo.put(_Work(raw, token, future))
        return future

    def end(self) -> None:
        """Nothing will be asked of this one any more; what it was asked comes to its end."""
        with self._lock:
            for _ in range(self._threads):
                self._todo.put(None)

    def keep_a_while(self, futures: list[Future[Fetched | Failed]]) -> None:
        """Nobody waits for these any more; whoever asks again within ten seconds finds what they brought.

        So a loop of ray.get with a time-out of 0 comes to its end.
        """
        with self._lock:
            new = [future for future in futures if future not in self._kept]
            self._kept.update(new)
        if new:
            timer = threading.Timer(_KEEP_S, self._drop, (new,))
            timer.daemon = True
            timer.start()

    def _drop(self, futures: list[Future[Fetched | Failed]]) -> None:
        with self._lock:
            self._kept.difference_update(futures)

    # ---- the helpers -----------------------------------------------------------------------------

    def _work_for_ever(self) -> None:
        while True:
            work = self._todo.get()
            if work is None:
                return
            try:
                result = self._fetch(work.raw)
            except BaseException as error:  # noqa: BLE001 - somebody waits for this future, whatever happened
                result = Failed(f"reading from the Gismo store through a bridge failed: {error!r}")
            with self._lock:
                self._busy -= 1
            work.future.set_result(result)
            del work, result

    def _fetch(self, raw: bytes) -> Fetched | Failed:
        exceptions = self._internals.ray.exceptions
        died: list[bytes] = []
        failing_since: float | None = None
        attempt = 0
        while True:
            actor = None
            try:
                actor = self._bridge(raw, attempt, died)
                return self._through(actor, raw)
            except exceptions.RayTaskError as error:
                if not isinstance(error.cause, exceptions.ObjectStoreFullError):
                    return Failed(f"the bridge to the Gismo store failed: {error}")
                problem: Exception = error
            except (exceptions.RayError, ValueError, LookupError) as error:
                # A bridge that died or is being restarted, pieces that died with it, a keeper that is not there.
                if actor is not None and isinstance(error, exceptions.ActorDiedError):
                    died.append(actor._actor_id.binary())
                problem = error
            now = time.monotonic()
            failing_since = now if failing_since is None else failing_since
            if now - failing_since > _GIVE_UP_S or self._worker is not self._connected():
                return Failed(
                    "this value lies in a Gismo store that this process cannot open, and no bridge to it answers "
                    f"(`gismo ray check` says where the store is in place): {problem}"
                )
            logger.debug("Gismo: a bridge failed, another try follows: %s", problem)
            time.sleep(min(_PAUSE_S * 2**attempt, _PAUSE_MOST_S))
            attempt += 1

    def _connected(self) -> Any:
        worker = self._internals.worker_module.global_worker
        return worker if worker.connected else None

    def _get(self, ref: Any) -> Any:
        return self._worker.get_objects([ref])[0][0]  # ray.get warns in async actors, which this does not hold up

    def _bridge(self, raw: bytes, attempt: int, died: list[bytes]) -> Any:
        """The bridge for a record: the same for all that ask, so that it is copied once; another at the next try."""
        uuid = record.handle_of(raw).store_uuid
        until, actors = self._bridges.get(uuid, (0.0, []))
        if attempt or until < time.monotonic():
            actors = self._known_bridges(uuid, died)
            self._bridges[uuid] = time.monotonic() + _BRIDGES_FOR_S, actors
        if not actors:
            raise LookupError("the keeper of the store knows no node that has it")
        return actors[(hash(raw) + attempt) % len(actors)]

    def _known_bridges(self, uuid: object, died: list[bytes]) -> list[Any]:
        """From the keeper, which makes them; without one, as nobody has needed it since it died, those that are there."""
        ray = self._internals.ray
        try:
            keeper = ray.get_actor(name_of(uuid), namespace=NAMESPACE)
            actors: list[Any] = self._get(keeper.bridges.remote(died))
        except (ValueError, ray.exceptions.RayActorError):
            named = ray.util.list_named_actors(all_namespaces=True)
            prefix = bridge.name_of(uuid, "")
            names = [one["name"] for one in named if one["namespace"] == NAMESPACE and one["name"].startswith(prefix)]
            actors = [ray.get_actor(name, namespace=NAMESPACE) for name in sorted(names)]
            if not actors:
                raise
        return actors

    def _through(self, actor: Any, raw: bytes) -> Fetched | Failed:
        answer = self._get(actor.open.remote(raw))
        if isinstance(answer, bridge.Gone):
            return Failed(answer.reason, gone=True)
        manifest, lease = answer
        parts = _Parts(manifest)
        count = len(manifest.pieces)
        for index in range(count):
            following = actor.piece.remote(raw, index + 1) if index + 1 < count else None
            parts.add(self._get(lease.piece).chunks, Hold((lease.piece, lease.lease)))
            lease = None
            if following is not None:
                lease = self._get(following)
                if isinstance(lease, bridge.Gone):
                    return Failed(lease.reason, gone=True)
        return Fetched(manifest.form, parts.buffers())


class _Parts:
    """Puts buffers together from pieces: mapped where a buffer is one chunk, on the heap where it is several."""

    def __init__(self, manifest: bridge.Manifest) -> None:
        self._wanted = manifest.buffers
        self._found: list[memoryview] = []
        self._partial: bytearray | None = None
        self._filled = 0

    def add(self, chunks: list[Any], hold: Hold) -> None:
        """The next piece. `hold` lives on with what is mapped of it, and only with that."""
        for chunk in chunks:
            self._skip_empty()
            length = self._wanted[len(self._found)].length
            view = memoryview(chunk)
            if view.nbytes == length and self._partial is None:
                self._found.append(_mapped(view, hold))
                continue
            if self._partial is None:
                self._partial, self._filled = bytearray(length), 0
            self._partial[self._filled : self._filled + view.nbytes] = view
            self._filled += view.nbytes
            if self._filled == length:
                self._found.append(memoryview(self._partial).toreadonly())
                self._partial = None

    def buffers(self) -> tuple[memoryview, ...]:
        """All of them, with their formats and shapes."""
        self._skip_empty()
        return tuple(map(_shaped, self._found, self._wanted))

    def _skip_empty(self) -> None:
        while len(self._found) < len(self._wanted) and not self._wanted[len(self._found)].length:
            self._found.append(memoryview(b""))


def _shaped(found: memoryview, wanted: bridge.Buffer) -> memoryview:
    kind: Any = wanted.format
    return found if kind == "B" and len(wanted.shape) == 1 else found.cast(kind, wanted.shape)


def _mapped(view: memoryview, hold: Hold) -> memoryview:
    held = _buffers.hold(view)
    try:
        address, length = int(held.buf or 0), int(held.len)
    finally:
        _native.py_release_buffer(held)
    exporter = _exporters[length.bit_length()](address)
    exporter.keep = view, hold
    return memoryview(exporter).cast("B")[:length].toreadonly()
