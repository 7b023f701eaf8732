"""Which Ray clusters live, as far as their records go; and sweeping those of the dead. docs/ray.md, What dies.

Records outlive the cluster that made them, and nobody of it is left to free them: a cluster that ends kills its own
processes. So each process of a cluster holds a shared lock on a file of the host's state directory, and each host that
has such processes says so in the store, in an object that is called after cluster and host (its *presence*). A cluster
is dead when no host has it any more, which only that host itself finds out, by taking the lock alone; and when its GCS
is gone too, because a process without the store may still hold references.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gismo_core
from gismo_core import errors

TAG = 0x4753 << 48
TAG_MASK = 0xFFFF << 48
_CONNECT_S = 1.0


class Presence(NamedTuple):
    """That a host has, or had, processes of a cluster."""

    cluster: str  # hexadecimal
    host_id: int
    gcs_address: str  # "IP:port"


class Witness:
    """Held by each process of a cluster for as long as it may use records: the lock, and the host's presence."""

    def __init__(self, store: gismo_core.Store, presence: Presence) -> None:
        state_dir = store.state_dir
        if state_dir is None:
            raise errors.InvalidArgument("a store that is opened read-only cannot take part in a Ray cluster")
        self._file = _lock(_lock_path(state_dir, presence.cluster), fcntl.LOCK_SH)
        name = _name(presence)
        with contextlib.suppress(errors.NameTaken):  # another process of this host said so already
            payload = json.dumps({"cluster": presence.cluster, "host": presence.host_id, "gcs": presence.gcs_address})
            if not _exists(store, name):
                store.put(payload.encode(), name=name, tag=TAG)

    def close(self) -> None:
        """This process has nothing to do with the cluster any more."""
        os.close(self._file)


def sweep(
    store: gismo_core.Store,
    others: Callable[[], Mapping[bytes, bytes]],
    own_cluster: str,
    gcs_is_gone: Callable[[Presence], bool],
) -> list[gismo_core.Handle]:
    """What may be deleted: records of clusters that are dead. Deletes presences of this host that are void.

    others: lists the records of other clusters, raw handle → cluster ID (28 bytes).
    """
    from gismo_core.records import HostState

    here = store.host_id
    state_dir = store.state_dir
    listed = others()  # before the presences are looked at: who comes meanwhile makes records that are not in this list
    if state_dir is None:
        return []
    for presence, handle in _presences(store):
        if presence.cluster == own_cluster or presence.host_id != here:
            continue
        with _alone(_lock_path(state_dir, presence.cluster)) as alone:
            if alone and gcs_is_gone(presence):
                with contextlib.suppress(errors.ObjectGone):
                    store.delete(handle)
                alone.unlink(missing_ok=True)
    gone_hosts = {host.host_id for host in store.hosts() if host.state in (HostState.QUIET, HostState.RELEASED)}
    alive = {presence.cluster for presence, _ in _presences(store) if presence.host_id not in gone_hosts}
    alive.add(own_cluster)
    return [
        gismo_core.Handle(raw)
        for raw, cluster in listed.items()
        if cluster.hex() not in alive and _is_free(_lock_path(state_dir, cluster.hex()))
    ]


def gcs_is_gone(presence: Presence) -> bool:
    """Whether nobody, or another cluster, answers where the cluster's GCS was. False when in doubt."""
    host, _, port = presence.gcs_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except ConnectionRefusedError:
        return True
    except (OSError, ValueError):
        return False
    try:
        from importlib import import_module

        raylet: Any = import_module("ray._raylet")
        return bool(raylet.GcsClient(address=presence.gcs_address).cluster_id.hex() != presence.cluster)
    except Exception:  # noqa: BLE001 - whatever keeps us from asking, it is no proof of death
        return False


def _presences(store: gismo_core.Store) -> Iterable[tuple[Presence, gismo_core.Handle]]:
    for one in store.sealed(tag=TAG, mask=TAG_MASK):
        handle = one.handle
        try:
            fields = json.loads(store.peek(handle, handle.length))
            yield Presence(str(fields["cluster"]), int(fields["host"]), str(fields["gcs"])), handle
        except (errors.ObjectGone, errors.InvalidArgument, ValueError, KeyError, TypeError):
            continue  # deleted meanwhile, or not ours


def _name(presence: Presence) -> str:
    return f"gismo-ray/{presence.cluster}/{presence.host_id}"


def _exists(store: gismo_core.Store, name: str) -> bool:
    try:
        store.lookup(name)
    except errors.NameNotFound:
        return False
    return True


def _lock_path(state_dir: Path, cluster: str) -> Path:
    return state_dir / f"ray-{cluster}"


def _lock(path: Path, how: int) -> int:
    """A descriptor that holds the lock on the file that is at `path` now. BlockingIOError with LOCK_NB."""
    while True:
        # As open to other users as the store's own lock file is.
        mode = (path.parent / "locks").stat().st_mode & 0o666
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        with contextlib.suppress(PermissionError):  # another user's, who did the same
            os.fchmod(file, mode)  # whatever the umask: a sweep may be another user's
        try:
            fcntl.flock(file, how)
            if os.fstat(file).st_ino == os.stat(path).st_ino:
                return file
        except FileNotFoundError:
            pass  # unlinked between the two: once more
        except BaseException:
            os.close(file)
            raise
        os.close(file)


@contextlib.contextmanager
def _alone(path: Path) -> Any:
    """The path while its lock is held by us alone, or None."""
    try:
        file = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        yield None
        return
    try:
        yield path
    finally:
        os.close(file)


def _is_free(path: Path) -> bool:
    with _alone(path) as alone:
        if alone:
            alone.unlink(missing_ok=True)
        return alone is not None
