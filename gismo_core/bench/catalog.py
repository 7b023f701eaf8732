"""All groups of ``gismo bench store`` and ``gismo bench ray``, in the order in which they run."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator

from gismo_core.bench import (
    contended,
    copy,
    cycle,
    incoherent,
    names,
    opening,
    ray_data,
    ray_free,
    ray_jobs,
    ray_put,
    ray_transfer,
    recovery,
    silence,
    simulator,
    versus_plasma,
    versus_vineyard,
)
from gismo_core.bench.group import Group

GROUPS: tuple[Group, ...] = (
    *copy.GROUPS,
    *cycle.GROUPS,
    *contended.GROUPS,
    *names.GROUPS,
    *recovery.GROUPS,
    *opening.GROUPS,
    *incoherent.GROUPS,
    *silence.GROUPS,
    *simulator.GROUPS,
    *versus_plasma.GROUPS,
    *versus_vineyard.GROUPS,
)

RAY_GROUPS: tuple[Group, ...] = (
    *ray_transfer.GROUPS,
    *ray_put.GROUPS,
    *ray_jobs.GROUPS,
    *ray_data.GROUPS,
    *ray_free.GROUPS,
)


def select(pattern: str | None, groups: Iterable[Group] = GROUPS) -> Iterator[tuple[Group, frozenset[str]]]:
    """Groups with a row that matches, and the names of these rows.

    pattern: shell wildcards over the whole name, or any part of a name; None selects all.
    """
    for group in groups:
        wanted = frozenset(row.name for row in group.rows if matches(row.name, pattern))
        if wanted:
            yield group, wanted


def matches(name: str, pattern: str | None) -> bool:
    """Whether ``--only pattern`` asks for the row."""
    return pattern is None or fnmatch.fnmatchcase(name, pattern) or pattern in name


def find(name: str) -> Group:
    """The group of that name."""
    return next(group for group in (*GROUPS, *RAY_GROUPS) if group.name == name)
