"""Exit codes of `gismo`, for scripts, and which error ends with which."""

from __future__ import annotations

import errno

from gismo_core import errors

OK = 0
ERROR = 1  # anything else; `doctor` found what stops gismo from working, `litmus` a violation
USAGE = 2  # a wrong option or argument, an unreadable handle
NOT_FOUND = 3  # no such name, object gone, no such file, no Ray cluster
FULL = 4
CORRUPT = 5  # fsck found errors, a payload failed its CRC
REFUSED = 6  # not permitted, exists already, in use, fenced
NOT_A_STORE = 7  # or one that this version does not know
MEDIA = 8  # the medium failed underneath
INTERRUPTED = 130  # Ctrl-C
NO_READER = 141  # whoever read our output left, as in `gismo ls | head`

HELP = """\b
Exit codes: 0 done, 1 error, 2 wrong usage, 3 not found or gone, 4 full,
5 corrupt, 6 refused (not permitted, exists, in use), 7 not a store of this
version, 8 the medium failed, 130 interrupted, 141 the reader of its output left."""

_CODES: tuple[tuple[type[Exception], int], ...] = (
    (errors.InvalidArgument, USAGE),
    (errors.StoreFull, FULL),
    (LookupError, NOT_FOUND),  # ObjectGone, NameNotFound, no Ray cluster
    (errors.CorruptStore, CORRUPT),
    (errors.NotAStore, NOT_A_STORE),
    (errors.Incompatible, NOT_A_STORE),
    (errors.MediaError, MEDIA),
    (errors.StorePermissionError, REFUSED),
    (errors.StoreExists, REFUSED),
    (errors.NameTaken, REFUSED),
    (errors.StoreBusy, REFUSED),
    (errors.HostIdInUse, REFUSED),
    (errors.NodeNotReady, REFUSED),
    (errors.Fenced, REFUSED),
)


def code_of(error: Exception) -> int:
    """The exit code that an error ends with."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, OSError):
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return NOT_FOUND
        if error.errno in (errno.EACCES, errno.EPERM, errno.EEXIST, errno.ELOOP, errno.EBUSY, errno.EROFS):
            return REFUSED
        if error.errno == errno.ENOSPC:
            return FULL
    return ERROR
