"""Keepers with one rule of freeing taken away. With each of them a scenario must report loss: so the checks can fail.

python -m ray_scenarios.sabotage ADDRESS POOL RULE makes such a keeper under the name that everybody will look for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from gismo_core.ray import collector, keeper, scan
from gismo_core.ray.record import Header, Kind


def _undelivered() -> None:
    """What is on its way in a reply counts as gone."""

    def referred(header: Header, delivered: bool, scan: scan.Scan) -> bool:
        return header.token in (scan.counted if header.kind is Kind.RETURN else scan.listed)

    collector._referred = referred


def _one_scan() -> None:
    """A record goes when one scan does not see its token."""
    proposals = collector.proposals

    def once(
        memory: collector.Memory, records: Mapping[bytes, Header], now: scan.Scan, keepers: Set[bytes]
    ) -> set[bytes]:
        memory.previous, memory.known_before = now, frozenset(records)
        return proposals(memory, records, now, keepers)

    collector.proposals = once


def _foreign() -> None:
    """A record goes although another one has buffers in it."""

    def without_named(unreferred: Set[bytes], after: Mapping[bytes, Header], pinned: Set[bytes]) -> set[bytes]:
        return {raw for raw in unreferred if raw in after and raw not in pinned}

    collector.without_named = without_named


def _half() -> None:
    """The answer of one node is left out."""
    build = scan.build

    def build_half(replies: Sequence[Any], wanted: scan.Wanted) -> scan.Scan | scan.Incomplete:
        return build(replies[:1], wanted)

    scan.build = build_half


def _never() -> None:
    """Nothing goes: a leak."""

    def proposals(
        memory: collector.Memory, records: Mapping[bytes, Header], now: scan.Scan, keepers: Set[bytes]
    ) -> set[bytes]:
        return set()

    collector.proposals = proposals


RULES: dict[str, Callable[[], None]] = {
    "undelivered": _undelivered,
    "one_scan": _one_scan,
    "foreign": _foreign,
    "half": _half,
    "never": _never,
}


class BrokenKeeper(keeper.Keeper):
    """A keeper that breaks one rule."""

    def __init__(self, rule: str) -> None:
        RULES[rule]()
        super().__init__()


def main(address: str, pool: str, rule: str) -> None:
    """Make the keeper, and wait until it works."""
    import ray

    import gismo_core
    from ray_scenarios import sabotage  # not __main__, which no worker could import

    ray.init(address=address, log_to_driver=False)
    options: dict[str, Any] = {
        "name": keeper.name_of(gismo_core.probe(pool).store_uuid),
        "namespace": keeper.NAMESPACE,
        "lifetime": "detached",
        "num_cpus": 0,
        "max_restarts": -1,
        "resources": {"node0": 0.001},
    }
    made = ray.remote(sabotage.BrokenKeeper).options(**options).remote(rule)
    print(ray.get(made.status.remote(), timeout=60))


if __name__ == "__main__":
    main(*sys.argv[1:])
