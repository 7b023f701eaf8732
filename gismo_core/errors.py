"""Every error of the store, all below GismoError.

The core (libgismo.so) answers with a status and a message that says what to do next; here a status becomes
a type. What standard exception a caller would expect is a base class too: NameNotFound and ObjectGone are
LookupErrors, InvalidArgument is a ValueError, SystemCallError an OSError, StorePermissionError a PermissionError.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gismo_core.records import Holder


class GismoError(Exception):
    """Base of all errors of this package."""


class StoreFull(GismoError):
    """There is no room for an object.

    `asked_bytes`, `free_bytes` and `largest_free_bytes` (the largest hole) are as the allocator saw them on this
    host; `free_objects` is the number of slots left. `holders` names who holds the room, largest first; it is
    looked up when it is first read, so raising this error costs nothing when it is caught and handled.
    """

    def __init__(
        self,
        message: str,
        asked_bytes: int = 0,
        free_bytes: int = 0,
        largest_free_bytes: int = 0,
        free_objects: int = 0,
        find_holders: Callable[[], tuple[Holder, ...]] | None = None,
    ) -> None:
        super().__init__(message)
        self.asked_bytes = asked_bytes
        self.free_bytes = free_bytes
        self.largest_free_bytes = largest_free_bytes
        self.free_objects = free_objects
        self._find_holders = find_holders
        self._holders: tuple[Holder, ...] | None = None

    @property
    def holders(self) -> tuple[Holder, ...]:
        """Processes of this host and tags that hold the room, the largest first (at most 16)."""
        if self._holders is None:
            find, self._find_holders = self._find_holders, None
            self._holders = find() if find is not None else ()
        return self._holders

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _rebuild_full,
            (
                self.args[0],
                self.asked_bytes,
                self.free_bytes,
                self.largest_free_bytes,
                self.free_objects,
                self.holders,
            ),
        )


def _rebuild_full(
    message: str, asked: int, free: int, largest: int, objects: int, holders: tuple[Holder, ...]
) -> StoreFull:
    error = StoreFull(message, asked, free, largest, objects)
    error._holders = holders
    return error


class ObjectGone(GismoError, LookupError):
    """The handle names an object that was deleted; its bytes may belong to others by now."""


class NotAStore(GismoError):
    """The medium holds no Gismo store."""


class StoreExists(GismoError):
    """A store, or something else, is already there; nothing was overwritten."""


class Incompatible(GismoError):
    """A store (or a libgismo.so) of a format or feature that this version does not know."""


class CorruptStore(GismoError):
    """A field or payload read from shared memory failed its check."""


class Fenced(GismoError):
    """This host was taken for dead and fenced; it may not write until it has rejoined."""


class HostIdInUse(GismoError):
    """Another living host has this host id."""


class NodeNotReady(GismoError):
    """This node was not prepared for the store, by the agent that has to ($GISMO_NODE_MARKER)."""


class MediaError(GismoError):
    """The medium failed underneath: truncated, unbound, poisoned, or out of space. `errno` is 0 if unknown.

    Raised where the core touches it. Who reads a view of such an object by himself dies of SIGBUS, as any mapping would have
    it; a line on standard error then says which byte of which store, and which object.
    """

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.args[0], self.errno))


class StoreClosed(GismoError):
    """The store, view or object was closed, released, sealed or aborted before this call."""


class InvalidArgument(GismoError, ValueError):
    """An argument makes no sense; the message says which and what is expected."""


class NameTaken(GismoError):
    """An object already has that name."""


class NameNotFound(GismoError, LookupError):
    """No object has that name (or none got it while waiting)."""


class StorePermissionError(GismoError, PermissionError):
    """Not allowed: another user's store, a symbolic link, or an object that is not this process's."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StoreBusy(GismoError):
    """In use: views or processes hold it."""


class PartnerMissing(GismoError, LookupError):
    """Nobody came with whom this host could test the hardware."""


class PartnerLost(GismoError):
    """The other side of a test of the hardware died, stopped, or ended before it was over."""


class Unsupported(GismoError):
    """This machine or installation cannot do it."""


class SystemCallError(GismoError, OSError):
    """A system call failed; `errno` says how."""

    # OSError.__new__ fills errno and strerror from two arguments.
    def __init__(self, errno: int, message: str) -> None:
        super().__init__(errno, message)

    def __str__(self) -> str:
        return str(self.strerror)


OK = 0
EFULL = -1
EGONE = -2
ENOTSTORE = -3
EINCOMPAT = -4
ECORRUPT = -5
EFENCED = -6
EHOSTINUSE = -7
EMEDIA = -8
ECLOSED = -9
EINVAL = -10
ESYS = -11
EEXIST = -12
ENOTFOUND = -13
EPERM = -14
EBUSY = -15
EUNSUPPORTED = -16

_TYPES: dict[int, type[GismoError]] = {
    EGONE: ObjectGone,
    ENOTSTORE: NotAStore,
    EINCOMPAT: Incompatible,
    ECORRUPT: CorruptStore,
    EFENCED: Fenced,
    EHOSTINUSE: HostIdInUse,
    ECLOSED: StoreClosed,
    EINVAL: InvalidArgument,
    EEXIST: StoreExists,
    ENOTFOUND: NameNotFound,
    EPERM: StorePermissionError,
    EBUSY: StoreBusy,
    EUNSUPPORTED: Unsupported,
}


def from_status(
    status: int,
    message: str,
    *,
    sys_errno: int = 0,
    asked_bytes: int = 0,
    free_bytes: int = 0,
    largest_free_bytes: int = 0,
    free_objects: int = 0,
    find_holders: Callable[[], tuple[Holder, ...]] | None = None,
    exists: type[GismoError] = StoreExists,
) -> GismoError:
    """The exception for a negative status of the core. `exists` is what GISMO_EEXIST means to the caller."""
    if status == EFULL:
        return StoreFull(message, asked_bytes, free_bytes, largest_free_bytes, free_objects, find_holders)
    if status == EMEDIA:
        return MediaError(message, sys_errno)
    if status == ESYS:
        return SystemCallError(sys_errno, message or os.strerror(sys_errno))
    if status == EEXIST:
        return exists(message)
    kind = _TYPES.get(status)
    if kind is None:
        return GismoError(f"{message} (status {status} is unknown to this binding; install a matching gismo_core)")
    return kind(message)
