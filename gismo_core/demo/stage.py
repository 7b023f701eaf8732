"""What every act is given, and how times and rates are written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gismo_core.demo.content import Content
from gismo_core.demo.plan import Plan
from gismo_core.demo.report import Report
from gismo_core.demo.screen import Screen

_POLL_S = 0.0002
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Plan, what the objects contain, what is noted, what is seen."""

    plan: Plan
    content: Content
    report: Report
    screen: Screen

    def expect(self, what: str, ok: bool, found: str) -> None:
        """Note and show whether it held."""
        self.screen.check(self.report.expect(what, ok, found))

    def note(self, act: str, **figures: Any) -> None:
        """Figures for --json."""
        self.report.figures.setdefault(act, {}).update(figures)

    def conclude(self, what: str, figure: str) -> None:
        """A line of the summary."""
        self.report.lines.append((what, figure))


def wait_until(condition: Callable[[], bool], begin_s: float | None = None) -> float | None:
    """Seconds from begin_s (now, if not given) until it is true; None if it does not become so in 10 s."""
    begin_s = time.monotonic() if begin_s is None else begin_s
    while not condition():
        if time.monotonic() - begin_s > _PATIENCE_S:
            return None
        time.sleep(_POLL_S)
    return time.monotonic() - begin_s


def ms(seconds: float | None) -> str:
    """As text."""
    return f"not within {_PATIENCE_S:.0f} s" if seconds is None else f"{1e3 * seconds:.1f} ms"


def count(number: float) -> str:
    """12,345."""
    return f"{number:,.0f}"


def gb_s(nbytes: float, seconds: float) -> str:
    """10**9 bytes per second."""
    return f"{nbytes / max(seconds, 1e-9) / 1e9:.1f} GB/s"
