"""Which records may be freed: a pure decision over two scans and two lists. docs/ray.md, Freeing, gives the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from gismo_core.ray.record import Header, Kind
from gismo_core.ray.scan import Scan, Wanted


@dataclass(slots=True)
class Memory:
    """What is remembered between scans."""

    previous: Scan | None = None
    known_before: frozenset[bytes] = frozenset()  # records that were listed before the previous scan began
    delivered: set[bytes] = field(default_factory=set)

    def forget(self) -> None:
        """A scan was incomplete, or none was made for long: the next pair begins anew."""
        self.previous = None
        self.known_before = frozenset()


def wanted(records: Mapping[bytes, Header], delivered: Set[bytes]) -> Wanted:
    """What a scan has to look for."""
    returns = {raw: header for raw, header in records.items() if header.kind is Kind.RETURN}
    return Wanted(
        tokens={header.token for header in records.values()},
        weighed={header.token for header in returns.values()},
        tasks={header.task for raw, header in returns.items() if raw not in delivered},
    )


def proposals(memory: Memory, records: Mapping[bytes, Header], now: Scan, keepers: Set[bytes]) -> set[bytes]:
    """The records that nobody refers to any more, by the scan before and this one; raw handles.

    records: those listed before this scan began. keepers: the worker IDs of keepers, whose tables do not count as
    delivery. Updates `memory`; the caller has yet to ask for pins and for who names these as foreign extents.
    """
    before, memory.previous = memory.previous, now
    known_before, memory.known_before = memory.known_before, frozenset(records)
    memory.delivered.intersection_update(records)
    unreferred = set()
    for raw, header in records.items():
        if header.kind is not Kind.RETURN:
            if header.token in now.listed:
                continue  # most of them
        else:
            holders = now.counted.get(header.token)
            if holders and raw not in memory.delivered and holders - keepers - {header.worker}:
                memory.delivered.add(raw)
        unreferred.add(raw)
    if before is None:
        return set()
    return {
        raw
        for raw in unreferred & known_before
        if not _referred(records[raw], raw in memory.delivered, before)
        and not _referred(records[raw], raw in memory.delivered, now)
    }


def _referred(header: Header, delivered: bool, scan: Scan) -> bool:
    if header.kind is not Kind.RETURN:
        return header.token in scan.listed
    return header.token in scan.counted or (not delivered and header.task in scan.tasks)


def without_named(unreferred: Set[bytes], after: Mapping[bytes, Header], pinned: Set[bytes]) -> set[bytes]:
    """Those of `unreferred` that are not pinned and that no living record names as a foreign extent.

    after, pinned: listed after the second scan.
    """
    going = {raw for raw in unreferred if raw in after and raw not in pinned}
    named = {foreign for raw, header in after.items() if raw not in going for foreign in header.foreign}
    return going - named


@dataclass(slots=True)
class Budget:
    """Holds scans down to a share of a core, as a mean over a minute: a token bucket in seconds of CPU time."""

    share: float = 0.02
    window_s: float = 60.0
    at_hand_s: float = 0.0
    _last_s: float | None = None

    def allows(self, now_s: float) -> bool:
        """May a scan be made now?"""
        self._fill(now_s)
        return self.at_hand_s >= 0

    def charge(self, cost_s: float, now_s: float) -> None:
        """A scan took this much CPU time."""
        self._fill(now_s)
        self.at_hand_s -= cost_s

    def wait_s(self, now_s: float) -> float:
        """How long until a scan is allowed."""
        self._fill(now_s)
        return max(0.0, -self.at_hand_s / self.share)

    def _fill(self, now_s: float) -> None:
        if self._last_s is None:
            self.at_hand_s = self.share * self.window_s
        else:
            self.at_hand_s = min(self.share * self.window_s, self.at_hand_s + (now_s - self._last_s) * self.share)
        self._last_s = now_s
