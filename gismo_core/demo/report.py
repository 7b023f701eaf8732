"""What was measured, what had to hold, and whether it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class DemoError(Exception):
    """The demo cannot go on; says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to hold."""

    what: str
    ok: bool
    found: str


@dataclass(slots=True)
class Report:
    """Grows while the demo runs. figures: act -> what it measured, as JSON will show it."""

    figures: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    """The summary: (what, figure)."""
    error: str | None = None

    def expect(self, what: str, ok: bool, found: str) -> Check:
        """Note whether it held; found: the measured value that decided."""
        check = Check(what, ok, found)
        self.checks.append(check)
        return check

    @property
    def failed(self) -> list[Check]:
        """What did not hold."""
        return [check for check in self.checks if not check.ok]

    @property
    def ok(self) -> bool:
        """Everything was done and held."""
        return self.error is None and not self.failed and bool(self.checks)

    def document(self) -> dict[str, Any]:
        """What --json prints."""
        return {
            "ok": self.ok,
            "error": self.error,
            **self.figures,
            "checks": [{"what": check.what, "ok": check.ok, "found": check.found} for check in self.checks],
        }
