"""Reading in a process without the pool: marks, and where the values take their places.

docs/ray.md, A process without the pool, says what each thread may do. Nothing here runs, or is imported, in a process
that can open the store.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import CodeType, FrameType
from typing import Any

from gismo_core.ray import compat, reading
from gismo_core.ray.fetching import Failed, Fetched, Fetcher

logger = logging.getLogger("gismo.ray")


class NotHere(Exception):
    """A value that lies in a pool which this process cannot open, and that cannot be fetched here and now."""


class Mark:
    """Stands for a value until it is fetched. Keeps the record, by its token."""

    __slots__ = ("context", "outer", "raw", "token")

    def __init__(self, raw: bytes, token: Any, context: Any) -> None:
        self.raw = raw
        self.token = token
        self.context = context
        self.outer = context.get_outer_object_ref()  # the ObjectRef whose value this is; None for a by-value argument

    def __reduce__(self) -> tuple[Any, ...]:
        raise NotHere(
            "this process took a value of the Gismo store from a private callback of Ray, and has no access to the "
            "store: run it on a node that has (GISMO_STORE), or read the value with ray.get or await"
        )

    def __repr__(self) -> str:
        return "<a value in a Gismo store that this process cannot open: read its ObjectRef again>"


class _Hooks:
    lock = threading.Lock()
    internals: compat.Internals | None = None
    fetcher: Fetcher | None = None
    finisher: queue.SimpleQueue[Callable[[], None]] | None = None
    get_objects: CodeType | None = None  # Ray's own
    hooked_get_objects: CodeType | None = None


def install(internals: compat.Internals) -> None:
    """Ray has connected in a process without the pool: from now on marks are resolved. Safe to repeat."""
    with _Hooks.lock:
        if _Hooks.fetcher is not None:
            _Hooks.fetcher.end()
        _Hooks.fetcher = Fetcher(internals)  # a new one for each cluster
        if _Hooks.internals is not None:
            return
        original = internals.worker.get_objects
        hooked = _get_objects(original)
        _Hooks.get_objects, _Hooks.hooked_get_objects = original.__code__, hooked.__code__
        internals.worker.get_objects = functools.wraps(original)(hooked)
        signature, raylet = internals.signature, internals.raylet
        signature.recover_args = _recover_args(signature.recover_args)
        raylet._set_future_helper = _set_future_helper(raylet._set_future_helper)
        _Hooks.internals = internals


def mark(raw: bytes, token: Any) -> Any:
    """What a descriptor unpickles to here. Whoever asked for the value resolves it, outside of unpickling."""
    unprepared = _Hooks.internals is None  # nobody said GISMO_STORE, and this is the first descriptor that comes by
    if unprepared:
        try:
            install(compat.load())
        except compat.UnsupportedRay as error:
            raise NotHere(f"a value lies in a Gismo store that this process cannot open, and {error}") from error
    worker = _internals().worker_module.global_worker
    made = Mark(raw, token, worker.get_serialization_context())
    asking, last = _asking_frame(sys._getframe(1))
    if asking is not None:
        if asking.f_back is None or asking.f_back.f_code is not _Hooks.hooked_get_objects:
            # This ray.get began before the hooks were there: nobody comes after us.
            return resolve([made], None)[0]
    elif unprepared and last.f_code.co_name == "deserialize_objects" and not worker.core_worker.get_current_task_name():
        # Ray's callback thread: the future was made before the hooks were there.
        raise NotHere(
            "this value lies in a Gismo store that this process cannot open, and it is the first of its kind here: "
            "await it again, which will fetch it; or set GISMO_STORE in the environment of this process"
        )
    return made


def _internals() -> compat.Internals:
    internals = _Hooks.internals
    if internals is None:
        raise NotHere("no value of the Gismo store was read in this process yet")  # cannot be: marks come after hooks
    return internals


def _asking_frame(frame: FrameType) -> tuple[FrameType | None, FrameType]:
    """(the frame of Ray's own get_objects that unpickling was called from, or None; else the outermost frame)."""
    at: FrameType = frame
    while True:
        if at.f_code is _Hooks.get_objects:
            return at, at
        if at.f_back is None:
            return None, at
        at = at.f_back


# ---- the places where values are taken on ------------------------------------------------------------


def _get_objects(original: Callable[..., Any]) -> Any:
    def get_objects(
        self: Any,
        object_refs: Any,
        timeout: float | None = None,
        return_exceptions: bool = False,
        *rest: Any,
        **options: Any,
    ) -> Any:
        start = time.monotonic()
        values, breakpoint_ = original(self, object_refs, timeout, return_exceptions, *rest, **options)
        places = [] if values is None else _places(values)
        if places:
            deadline = None if timeout is None or timeout == -1 else start + timeout
            found = resolve([values[place] for place in places], deadline)
            for place, value in zip(places, found, strict=True):
                values[place] = value
                if not return_exceptions:
                    _raise_if_failed(value)
        return values, breakpoint_

    return get_objects


def _recover_args(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(original)
    def recover_args(flattened_args: Any) -> Any:
        places = _places(flattened_args)
        if places:
            flattened_args = list(flattened_args)
            found = resolve([flattened_args[place] for place in places], None)
            for place, value in zip(places, found, strict=True):
                _raise_if_failed(value)  # as Ray does with arguments that failed, a moment before
                flattened_args[place] = value
        return original(flattened_args)

    return recover_args


def _set_future_helper(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def set_future(result: Any, *, py_future: Any) -> None:
        if type(result) is not Mark:
            original(result, py_future=py_future)
            return

        def finish(fetched: Fetched | Failed) -> None:
            original(_build(result, fetched), py_future=py_future)

        waiting = _fetcher().fetch(result.raw, result.token)
        waiting.add_done_callback(lambda done: _finish_later(lambda: finish(done.result())))

    return set_future


def _places(values: Sequence[Any]) -> list[int]:
    return [place for place, value in enumerate(values) if type(value) is Mark]


def _raise_if_failed(value: Any) -> None:
    exceptions = _internals().ray.exceptions
    if isinstance(value, exceptions.RayError):
        raise value.as_instanceof_cause() if isinstance(value, exceptions.RayTaskError) else value


# ---- resolving ---------------------------------------------------------------------------------------


def resolve(marks: Sequence[Mark], deadline: float | None) -> list[Any]:
    """The values, or the exceptions of Ray, that the marks stand for. Waits, so never on Ray's callback thread.

    GetTimeoutError when time.monotonic() reaches `deadline`.
    """
    internals = _internals()
    fetcher = _fetcher()
    waiting = [fetcher.fetch(mark.raw, mark.token) for mark in marks]
    fetched: list[Fetched | Failed] = []
    # The helpers need Ray's import lock to read the bridge's answers, and we may hold it: unpickling that was called
    # from a value's own unpickling.
    with _given_back(internals.worker_module.global_worker.function_actor_manager.lock):
        for one in waiting:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                fetched.append(one.result(left))
            except FutureTimeoutError:
                fetcher.keep_a_while(waiting)
                raise internals.ray.exceptions.GetTimeoutError(
                    "Get timed out: some object(s) are still on their way from the Gismo store, through a bridge."
                ) from None
    return [_build(mark, one) for mark, one in zip(marks, fetched, strict=True)]


@contextlib.contextmanager
def _given_back(lock: Any) -> Iterator[None]:
    """A re-entrant lock, released as often as this thread holds it, and taken as often again."""
    depth = 0
    with contextlib.suppress(RuntimeError):  # released by one who does not hold it
        while True:
            lock.release()
            depth += 1
    try:
        yield
    finally:
        for _ in range(depth):
            lock.acquire()


def _build(mark: Mark, fetched: Fetched | Failed) -> Any:
    """Unpickle, as Ray does it: under its lock, with the outer reference known, an error being a value."""
    internals = _internals()
    exceptions = internals.ray.exceptions
    outer = mark.outer
    if isinstance(fetched, Failed):
        if not fetched.gone:
            return exceptions.RaySystemError(fetched.reason)
        if outer is None or not outer.binary():
            return exceptions.ObjectLostError("", b"", "")
        return exceptions.ObjectLostError(outer.hex(), outer.owner_address(), outer.call_site())
    local = mark.context._thread_local
    with internals.worker_module.global_worker.function_actor_manager.lock:
        stack = local.__dict__.setdefault("object_ref_stack", [])
        stack.append(outer)
        try:
            packed, in_band, *buffers = fetched.buffers
            return reading.assemble(fetched.form, packed, in_band, buffers)
        except Exception as error:  # noqa: BLE001 - whatever the value's own unpickling raises, as in Ray
            return exceptions.RaySystemError(error, traceback.format_exc())
        finally:
            stack.pop()


def _fetcher() -> Fetcher:
    fetcher = _Hooks.fetcher
    if fetcher is None:
        raise NotHere("no value of the Gismo store was read in this process yet")  # cannot be: marks come after hooks
    return fetcher


def _finish_later(work: Callable[[], None]) -> None:
    """Values of futures are unpickled by a thread of their own: no helper runs code of the user's."""
    with _Hooks.lock:
        if _Hooks.finisher is None:
            _Hooks.finisher = queue.SimpleQueue()
            threading.Thread(target=_finish_for_ever, args=(_Hooks.finisher,), name="gismo-finish", daemon=True).start()
    _Hooks.finisher.put(work)


def _finish_for_ever(todo: queue.SimpleQueue[Callable[[], None]]) -> None:
    while True:
        work = todo.get()
        try:
            work()
        except Exception:
            # As Ray's own callback thread does: one broken callback must not end all others.
            logger.exception("Gismo: a future could not be set")
        del work  # and with it the value
