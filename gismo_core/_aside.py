"""Long calls of the core that call back: made in a thread of their own, so that Ctrl-C gets through.

Python runs signal handlers in the main thread between two steps of Python code. While that thread is inside the core the
next such step is the first one of a callback, outside of every `try` in it: ctypes prints what is raised there and
throws it away, so Ctrl-C was lost and the call went on to its end. In another thread no handler runs, and the main
thread waits in Python, where an exception is one.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_LOOK_S = 0.1  # how soon the thread sees that it shall stop when the answer it waits for got lost


# Blocked they would kill the process: the core turns a SIGBUS of its own into an error.
_FAULTS = {signal.SIGBUS, signal.SIGSEGV, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}


def run_aside(
    call: Callable[[Callable[..., int]], _Result], seen: Callable[..., object], *, abandon: bool = False
) -> _Result:
    """call(report) in a thread; what it gives to report(...) arrives at seen(...), in the thread of the caller.

    report returns 0, and 1 once something was raised here, by seen or by a signal: call shall stop then. That is raised
    when call has ended; with `abandon` at once, and call goes on without anybody listening (for what cannot be stopped).
    """
    events: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()
    stopping = threading.Event()
    results: list[_Result] = []
    failures: list[BaseException] = []

    def report(*event: Any) -> int:
        events.put(event)
        while not stopping.is_set():
            with contextlib.suppress(queue.Empty):
                return answers.get(timeout=_LOOK_S)
        return 1

    def work() -> None:
        try:
            results.append(call(report))
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)
        finally:
            events.put(None)

    # A daemon, so that an abandoned one does not hold up the end of the process.
    thread = threading.Thread(target=work, name="gismo-aside", daemon=True)
    raised: BaseException | None = None
    try:
        _start(thread)
        while (event := events.get()) is not None:
            seen(*event)
            answers.put(0)
    except BaseException as error:  # noqa: BLE001 - raised again below
        raised = error
    finally:
        stopping.set()
    while thread.is_alive() and not (raised and abandon):
        try:
            thread.join()
        except BaseException as error:  # noqa: BLE001 - the first one counts: it is being stopped already
            raised = raised or error
    if raised is not None:
        raise raised
    if failures:
        raise failures[0]
    return results[0]


def _start(thread: threading.Thread) -> None:
    """Start it whole or not at all: no handler raises in the middle. And no signal is meant for the thread itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
