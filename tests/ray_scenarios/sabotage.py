"""Rules of freeing taken away from a keeper while a scenario runs: it must then report loss. So the checks can fail."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Set
from typing import Any

from gismo_core.ray import collector, scan
from gismo_core.ray.index import Index
from gismo_core.ray.record import Header


def _undelivered() -> None:
    """What is on its way in a reply counts as gone."""

    def awaited(header: Header, delivered: bool, scan: scan.Scan) -> bool:
        return header.token in scan.counted

    collector._awaited = awaited


def _one_scan() -> None:
    """A record goes when one scan does not see its token."""
    proposals = collector.proposals

    def once(memory: collector.Memory, records: Index, now: scan.Scan, keepers: Set[bytes]) -> set[bytes]:
        memory.previous, memory.known_before = now, records.generation
        return proposals(memory, records, now, keepers)

    collector.proposals = once


def _foreign() -> None:
    """A record goes although another one has buffers in it."""

    def without_named(unreferred: Set[bytes], after: Index, pinned: Set[bytes]) -> set[bytes]:
        return {raw for raw in unreferred if raw in after and raw not in pinned}

    collector.without_named = without_named


def _half() -> None:
    """Only the answer of the keeper's own node is looked at."""
    build = scan.build

    def build_half(replies: Sequence[Any], wanted: scan.Wanted) -> scan.Scan | scan.Incomplete:
        own = [reply for reply in replies if os.getpid() in (stats.pid for stats in reply.core_workers_stats)]
        return build(own, wanted)

    scan.build = build_half


def _never() -> None:
    """Nothing goes: a leak."""

    def proposals(memory: collector.Memory, records: Index, now: scan.Scan, keepers: Set[bytes]) -> set[bytes]:
        return set()

    collector.proposals = proposals


RULES: dict[str, Callable[[], None]] = {
    "undelivered": _undelivered,
    "one_scan": _one_scan,
    "foreign": _foreign,
    "half": _half,
    "never": _never,
}


_WHOLE = {
    "_awaited": (collector, collector._awaited),
    "proposals": (collector, collector.proposals),
    "without_named": (collector, collector.without_named),
    "build": (scan, scan.build),
}


def apply(_: Any, rule: str) -> None:
    """In the keeper's process: break a rule."""
    RULES[rule]()


def restore(_: Any) -> None:
    """In the keeper's process: all rules hold again."""
    for name, (module, function) in _WHOLE.items():
        setattr(module, name, function)
