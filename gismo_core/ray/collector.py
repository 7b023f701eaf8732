"""Which records may be freed: a pure decision over two scans and two lists. docs/ray.md, Freeing, gives the reasons."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from gismo_core.ray.index import Index
from gismo_core.ray.record import Header
from gismo_core.ray.scan import Scan, Wanted


@dataclass(slots=True)
class Memory:
    """What is remembered between scans."""

    previous: Scan | None = None
    known_before: int = -1  # the generation of the index that the previous scan was made for; -1: none
    delivered: set[bytes] = field(default_factory=set)

    def forget(self) -> None:
        """A scan was incomplete, or none was made for long: the next pair begins anew."""
        self.previous = None
        self.known_before = -1


def wanted(records: Index, delivered: Set[bytes]) -> Wanted:
    """What a scan has to look for: of puts and arguments whether they are listed at all, of returns who counts them."""
    returns = records.returns
    return Wanted(
        tokens=records.owned().keys(),
        weighed={header.token for header in returns.values()},
        tasks={header.task for raw, header in returns.items() if raw not in delivered},
    )


def proposals(memory: Memory, records: Index, now: Scan, keepers: Set[bytes]) -> set[bytes]:
    """The records that nobody refers to any more, by the scan before and this one; raw handles.

    records: those listed before this scan began. keepers: the worker IDs of keepers, whose tables do not count as
    delivery. Updates `memory`; the caller has yet to ask for pins and for who names these as foreign extents.
    """
    before, memory.previous = memory.previous, now
    known_before, memory.known_before = memory.known_before, records.generation
    memory.delivered.difference_update([raw for raw in memory.delivered if raw not in records])
    for raw, header in records.returns.items():
        holders = now.counted.get(header.token)
        if holders and raw not in memory.delivered and holders - keepers - {header.worker}:
            memory.delivered.add(raw)
    if before is None:
        return set()
    owned = records.owned()
    unreferred = {raw for token in before.unlisted & now.unlisted for raw in owned.get(token, ())}
    for raw, header in records.returns.items():
        delivered = raw in memory.delivered
        if not _awaited(header, delivered, now) and not _awaited(header, delivered, before):
            unreferred.add(raw)
    return {raw for raw in unreferred if records.known_since(raw, known_before)}


def _awaited(header: Header, delivered: bool, scan: Scan) -> bool:
    """Does somebody refer to this return, or is it still on its way to who asked for it?"""
    return header.token in scan.counted or (not delivered and header.task in scan.tasks)


def without_named(unreferred: Set[bytes], after: Index, pinned: Set[bytes]) -> set[bytes]:
    """Those of `unreferred` that are not pinned and that no living record names as a foreign extent.

    after, pinned: listed after the second scan.
    """
    going = {raw for raw in unreferred if raw in after and raw not in pinned}
    named = {foreign for raw, header in after.naming.items() if raw not in going for foreign in header.foreign}
    return going - named


@dataclass(slots=True)
class Budget:
    """Holds scans down to a share of a core, as a mean over a minute: a token bucket in seconds of CPU time."""

    share: float = 0.019  # of 0.02 that are promised: the last scan of a minute may cost more than is left of it
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
