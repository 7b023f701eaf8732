"""Something done by another user: in a forked child, since neither a checkout nor its Python need be readable to others."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


def as_user(uid: int, do: Callable[[], _Result]) -> _Result:
    """What do() returns when it is run by this user, who is in no other group. AssertionError with its traceback if it fails."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            told = pickle.dumps((do(), None))
        except BaseException:  # noqa: BLE001 - the parent says what it was
            told = pickle.dumps((None, traceback.format_exc()))
        os.write(writing, told)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    result, failed = pickle.loads(told)
    assert failed is None, failed
    done: _Result = result
    return done
