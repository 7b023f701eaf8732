"""The queue of pools to look at."""

from __future__ import annotations

import threading

from gismo_operator.due import Due
from set_clock import Clock


def test_a_pool_stands_in_it_once_and_at_the_earliest_time() -> None:
    clock = Clock()
    due = Due(clock)
    due.add("a", 10.0)
    due.add("a")
    due.add("a", 5.0)
    due.add("b")
    clock.now += 0.001
    assert {due.take(), due.take()} == {"a", "b"}
    due.close()
    assert due.take() is None


def test_what_fails_comes_back_later_each_time_and_never_after_half_a_minute() -> None:
    due = Due(Clock())
    waits = [due.failed("a") for _ in range(40)]
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert waits == sorted(waits)
    assert waits[-1] == 30.0
    due.succeeded("a")
    assert due.failed("a") == 0.1
    assert due.failed("b") == 0.1


def test_a_change_wakes_who_waits_and_closing_too() -> None:
    due = Due()
    taken: list[str | None] = []

    def work() -> None:
        while True:
            taken.append(due.take())
            if taken[-1] is None:
                return

    worker = threading.Thread(target=work)
    worker.start()
    due.add("later", 3600.0)
    due.add("now")
    due.add("soon", 0.05)
    while len(taken) < 2:
        worker.join(0.01)
    due.close()
    worker.join(10)
    assert not worker.is_alive()
    assert taken == ["now", "soon", None]
