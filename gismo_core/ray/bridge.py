"""The bridge: an actor on a node with the pool that copies records into Ray's own store, for processes without it.

docs/ray.md, A process without the pool. It owns the copies (pieces). Each hand-out of a piece carries a lease, a
reference of which the bridge keeps none: when the last lease of a piece is out of scope, so is the piece.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gismo_core import errors
from gismo_core.ray import record
from gismo_core.ray.record import Form

PIECE_BYTES = 256 << 20
_MOST = 4  # each is a process of its own
_THREADS = 8


def name_of(store_uuid: object, node: str) -> str:
    """The name of the actor on a node (its id in hexadecimal)."""
    return f"gismo-bridge-{store_uuid}-{node}"


@dataclass(frozen=True, slots=True)
class Gone:
    """The answer for a record that is no more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Buffer:
    """One buffer of a value, as record.Piece; its bytes are the next `length` of the pieces."""

    length: int
    format: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a value is made of: packed, in-band pickle, out-of-band buffers; and how they are cut into pieces.

    A piece is a list of chunks, by their lengths. A chunk never holds bytes of two buffers; one of no bytes has none.
    """

    form: Form
    buffers: tuple[Buffer, ...]
    pieces: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """A piece lent: keep all of this for as long as the bytes are in use."""

    piece: Any  # ObjectRef of a Piece
    lease: Any  # ObjectRef of nothing


class Piece:
    """Chunks of a record's bytes. Pickled without a copy; unpickled, they are mapped from Ray's store."""

    __slots__ = ("chunks",)

    def __init__(self, chunks: Sequence[Any]) -> None:
        self.chunks = chunks

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return Piece, ([pickle.PickleBuffer(chunk) for chunk in self.chunks],)


def cut(lengths: Iterable[int], most: int) -> list[list[tuple[int, int, int]]]:
    """Cut buffers into pieces of at most `most` bytes: each a list of (buffer, from, to).

    A buffer that is larger than a piece shares none with others, so that it can be put together piece by piece.
    """
    pieces: list[list[tuple[int, int, int]]] = []
    room = 0
    for index, length in enumerate(lengths):
        if length > most:
            pieces += [[(index, at, min(length, at + most))] for at in range(0, length, most)]
            room = 0
        elif length:
            if length > room:
                pieces.append([])
                room = most
            pieces[-1].append((index, 0, length))
            room -= length
    return pieces


@dataclass(slots=True)
class _Copy:
    """A piece that was made, or is being made under `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    piece: Any = None
    nbytes: int = 0
    leases: set[bytes] = field(default_factory=set)
    dropped: bool = False


class Bridge:
    """The actor. `ray.remote` is applied where it is made, so that importing this needs no Ray."""

    def __init__(self, piece_bytes: int) -> None:
        import ray

        from gismo_core.ray import session

        here = session.current()
        store = session.open_store()
        if here is None or store is None:
            raise RuntimeError(f"a Gismo bridge was started where the store cannot be opened: {session.failure()}")
        self._ray = ray
        self._core_worker = here.core_worker
        self._store = store
        session.end()  # from here on this process writes Ray's own way
        self._piece_bytes = piece_bytes
        self._copies: dict[tuple[bytes, int], _Copy] = {}
        self._of_lease: dict[bytes, tuple[bytes, int]] = {}
        self._lock = threading.Lock()
        self._ended: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.made = self.made_bytes = 0
        threading.Thread(target=self._drop_for_ever, name="gismo-leases", daemon=True).start()

    # ---- called by readers -----------------------------------------------------------------------

    def open(self, raw: bytes) -> tuple[Manifest, Lease | None] | Gone:
        """What the record `raw` is made of, and its first piece (None where all is empty)."""
        try:
            form, buffers, views = self._read(raw)
            pieces = cut(map(len, views), self._piece_bytes)
            manifest = Manifest(form, buffers, tuple(tuple(to - at for _, at, to in piece) for piece in pieces))
            return manifest, self._lend(raw, 0, pieces, views) if pieces else None
        except errors.ObjectGone as error:
            return Gone(str(error))

    def piece(self, raw: bytes, index: int) -> Lease | Gone:
        """Another piece of it."""
        try:
            _, _, views = self._read(raw)
            return self._lend(raw, index, cut(map(len, views), self._piece_bytes), views)
        except errors.ObjectGone as error:
            return Gone(str(error))

    def status(self) -> dict[str, int]:
        """Figures for people and tests."""
        with self._lock:
            made = [copy for copy in self._copies.values() if copy.piece is not None]
            return {
                "held": len(made),
                "held_bytes": sum(copy.nbytes for copy in made),
                "leases": len(self._of_lease),
                "made": self.made,
                "made_bytes": self.made_bytes,
            }

    # ---- copying ---------------------------------------------------------------------------------

    def _read(self, raw: bytes) -> tuple[Form, tuple[Buffer, ...], list[memoryview]]:
        """(form, buffers, their bytes, which keep the record pinned); ObjectGone."""
        store = self._store
        parts = store.get(record.handle_of(raw)).buffers
        head = record.Header.unpack(parts[0])
        foreign = [store.get(record.handle_of(other)).data for other in head.foreign]
        if len(parts) < record.FIXED_BUFFERS:
            raise errors.CorruptStore("a record of Ray has too few buffers; run `gismo fsck --verify`")
        _, plan, packed, in_band, *own = parts
        views = [packed, in_band, *record.lay_out(plan, own, foreign)]
        buffers = tuple(Buffer(view.nbytes, view.format, view.shape or ()) for view in views)
        return head.form, buffers, [view if view.ndim == 1 and view.format == "B" else view.cast("B") for view in views]

    def _lend(self, raw: bytes, index: int, pieces: list[list[tuple[int, int, int]]], views: list[memoryview]) -> Lease:
        key = raw, index
        while True:
            with self._lock:
                copy = self._copies.setdefault(key, _Copy())
            with copy.lock:  # one copies, the others that want the same wait for it
                if copy.dropped:
                    continue
                try:
                    if copy.piece is None:
                        chunks = [views[buffer][at:to] for buffer, at, to in pieces[index]]
                        copy.piece = self._ray.put(Piece(chunks))
                        copy.nbytes = sum(map(len, chunks))
                        with self._lock:
                            self.made += 1
                            self.made_bytes += copy.nbytes
                    lease = self._ray.put(b"")
                    self._core_worker.add_object_out_of_scope_callback(lease, self._ended.put)
                    with self._lock:
                        copy.leases.add(lease.binary())
                        self._of_lease[lease.binary()] = key
                except BaseException:
                    self._drop_if_unused(key, copy)
                    raise
                return Lease(copy.piece, lease)

    def _drop_for_ever(self) -> None:
        # A thread of its own: the callback comes from inside Ray's reference counter.
        while True:
            lease = self._ended.get()
            with self._lock:
                key = self._of_lease.pop(lease, None)
                copy = None if key is None else self._copies.get(key)
            if key is not None and copy is not None:
                with copy.lock:
                    copy.leases.discard(lease)
                    self._drop_if_unused(key, copy)

    def _drop_if_unused(self, key: tuple[bytes, int], copy: _Copy) -> None:
        """With copy.lock held."""
        if copy.leases:
            return
        copy.dropped = True
        copy.piece = None
        with self._lock:
            if self._copies.get(key) is copy:
                del self._copies[key]


class Bridges:
    """The keeper's list of bridges: makes them, where the pool is known to be, when they are first asked for."""

    def __init__(self, ray: Any, store_uuid: object) -> None:
        self._ray = ray
        self._uuid = store_uuid
        self._made: dict[bytes, Any] = {}

    def handles(self, nodes: Iterable[bytes], died: Iterable[bytes]) -> list[Any]:
        """At most four, on the first of `nodes` that live; anew where the actor is one of `died` (actor ids)."""
        alive = {bytes.fromhex(node["NodeID"]) for node in self._ray.nodes() if node["Alive"]}
        dead = set(died)
        self._made = {
            node: actor for node, actor in self._made.items() if node in alive and actor._actor_id.binary() not in dead
        }
        for node in nodes:
            if len(self._made) >= _MOST:
                break
            if node in alive and node not in self._made:
                self._made[node] = self._make(node.hex())
        return list(self._made.values())

    def _make(self, node: str) -> Any:
        from gismo_core.ray.keeping import NAMESPACE, detached

        name = name_of(self._uuid, node)
        with contextlib.suppress(ValueError):  # left by a keeper before this one
            return self._ray.get_actor(name, namespace=NAMESPACE)
        return detached(self._ray, Bridge, name, node, max_concurrency=_THREADS).remote(PIECE_BYTES)
