"""Stock Ray's outcomes beside those with Gismo: which tests are the same, which are not. No processes here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ray_upstream.outcomes import ABSENT, Outcome, Outcomes

SAME, DIFFERENT, FLAKY = "same", "different", "flaky"
NOT_RUN = Outcome(ABSENT, "it did not run")


@dataclass(frozen=True, slots=True)
class Test:
    """One test with what it came to each time that it ran, the first time first."""

    test: str
    off: tuple[Outcome, ...]
    on: tuple[Outcome, ...]

    @property
    def verdict(self) -> str:
        """DIFFERENT: no outcome is common to both sides. FLAKY: they differed once, and agreed another time.

        Only the first run has all tests of the file in one process.
        """
        if self.off[0].what == self.on[0].what:
            return SAME
        return FLAKY if {one.what for one in self.off} & {one.what for one in self.on} else DIFFERENT

    @property
    def only_with_gismo(self) -> bool:
        """Is it flaky with Gismo, and was it never with stock Ray? Nobody may wave that through."""
        return self.verdict == FLAKY and len({one.what for one in self.off}) == 1

    def describe(self) -> str:
        """A line for people."""
        off, on = (" ".join(one.what for one in side) for side in (self.off, self.on))
        why = next((one.why for one in (*self.on, *self.off) if one.why), "")
        return f"{self.test}: stock Ray {off}; with Gismo {on}" + (f" ({why})" if why else "")


def compare(off: Sequence[Outcomes], on: Sequence[Outcomes], *, cut_off: bool = False) -> list[Test]:
    """The first run of each side, and then those in which only some tests were run again, in the order of their ids.

    cut_off: a side's time was over before all tests had run, so that those which one side lacks are left out. Else a
    test that did not run (pytest was killed, it seems) is one that differs.
    """
    ran = set(off[0]) & set(on[0]) if cut_off else set(off[0]) | set(on[0])
    return [Test(test, _of(test, off), _of(test, on)) for test in sorted(ran - {""})]


def to_run_again(off: Sequence[Outcomes], on: Sequence[Outcomes], *, cut_off: bool = False) -> list[str]:
    """Tests whose outcomes have nothing in common so far."""
    return [one.test for one in compare(off, on, cut_off=cut_off) if one.verdict == DIFFERENT]


def _of(test: str, runs: Sequence[Outcomes]) -> tuple[Outcome, ...]:
    first, *more = runs
    return (first.get(test, NOT_RUN), *(run[test] for run in more if test in run))
