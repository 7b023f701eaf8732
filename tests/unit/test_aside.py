"""Calls that are made aside: nothing raised meanwhile is lost, and the call is told to stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from gismo_core._aside import run_aside

Report = Callable[..., int]


def test_all_is_seen_where_the_caller_is() -> None:
    seen: list[tuple[int, bool]] = []

    def call(report: Report) -> list[int]:
        assert threading.current_thread() is not threading.main_thread()
        return [report(number) for number in range(100)]

    answers = run_aside(
        call, lambda number: seen.append((number, threading.current_thread() is threading.main_thread()))
    )
    assert answers == [0] * 100
    assert seen == [(number, True) for number in range(100)]


def test_what_seen_raises_stops_the_call() -> None:
    answers: list[int] = []

    def call(report: Report) -> None:
        answers.extend(report(number) for number in range(3))

    def seen(number: int) -> None:
        if number == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_aside(call, seen)
    assert answers == [0, 1, 1]


def test_what_the_call_raises_is_raised() -> None:
    def call(report: Report) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_aside(call, lambda: None)


@pytest.mark.parametrize("abandon", [False, True])
@pytest.mark.parametrize("reports", [False, True])
def test_a_signal_is_raised_and_stops_the_call(abandon: bool, reports: bool) -> None:
    ended = threading.Event()
    answers: list[int] = []

    def call(report: Report) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        if reports:
            answers.append(report())
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        run_aside(call, lambda: None, abandon=abandon)
    assert ended.is_set() is not abandon
    assert ended.wait(10)
    assert answers == [1] * reports
