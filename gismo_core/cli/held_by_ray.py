"""What Ray keeps in a store, as `gismo fsck --ray` and `gismo top` show it. Ray is imported only to ask who holds it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from gismo_core.cli.output import age_text, show_table, size_text, table_text
from gismo_core.errors import GismoError
from gismo_core.records import TagInfo
from gismo_core.store import Store

if TYPE_CHECKING:
    from gismo_core.ray.holding import Asker, Held, Holding

_SHOWN = 1000
_GROUPS_SHOWN = 15


@dataclass(frozen=True, slots=True)
class Look:
    """All records, and what holds each where a cluster answered. `problem`: why that is unknown."""

    held: tuple[Held, ...]
    why: tuple[str | None, ...]
    holding: Holding | None
    problem: str | None

    def plain(self) -> dict[str, Any]:
        """For --json."""
        records = []
        for one, why in zip(self.held, self.why, strict=True):
            holders = self.holding.holders.get(one.token, ()) if self.holding else None
            records.append({**_fields(one), "made_by": one.made_by, "held_by": why, "holders": holders})
        return {"problem": self.problem, "records": records}


@dataclass(frozen=True, slots=True)
class Group:
    """The records that one task, actor method or driver made on one node."""

    job: str
    made_by: str
    node: str
    objects: int
    extent_bytes: int
    oldest_unix_ns: int
    pins: int
    held_by: tuple[str, ...] | None  # None: not asked, or no answer


@dataclass(frozen=True, slots=True)
class Groups:
    """The largest first. `problem`: why holders are unknown, although they were asked for."""

    groups: tuple[Group, ...]
    problem: str | None


class Watch:
    """Looks again and again, with one connection."""

    def __init__(self, store: Store, asker: Asker | None, cluster: str, problem: str | None) -> None:
        from gismo_core.ray.holding import Book

        self._book = Book(store)
        self._asker = asker
        self._cluster = cluster
        self._problem = problem

    def look(self) -> Look:
        """Every record by itself."""
        from gismo_core.ray.holding import named, why_held

        held = tuple(self._book.held())
        if self._asker is None:
            return Look(held, (None,) * len(held), None, self._problem)
        holding = self._asker.ask(held)
        by = named(held)
        why = tuple(why_held(one, holding, by, self._cluster) for one in held)
        return Look(held, why, holding, holding.problem and f"the scan was incomplete: {holding.problem}")

    def groups(self) -> Groups:
        """Records together by who made them."""
        look = self.look()
        groups: dict[tuple[str, str, str], list[tuple[Held, str | None]]] = {}
        for one, why in zip(look.held, look.why, strict=True):
            groups.setdefault((one.job, one.made_by, one.node), []).append((one, why))
        found = []
        for (job, made_by, node), members in groups.items():
            held_by: tuple[str, ...] | None = None
            if look.holding is not None:
                names = {
                    f"{holder.what} pid {holder.pid} on {holder.node[:12] or holder.address}"
                    for one, _ in members
                    for holder in look.holding.holders.get(one.token, ())
                }
                held_by = tuple(sorted(names)) or tuple(sorted({why for _, why in members if why}))
            found.append(
                Group(
                    job=job,
                    made_by=made_by,
                    node=node,
                    objects=len(members),
                    extent_bytes=sum(one.nbytes for one, _ in members),
                    oldest_unix_ns=min(one.created_unix_ns for one, _ in members),
                    pins=sum(one.pins_here for one, _ in members),
                    held_by=held_by,
                )
            )
        found.sort(key=lambda group: group.extent_bytes, reverse=True)
        return Groups(tuple(found), look.problem)


@contextlib.contextmanager
def watching(store: Store, address: str | None, *, ask: bool) -> Iterator[Watch]:
    """A Watch, connected to the cluster if `ask` and one answers; else it says why not, and reads headers alone."""
    with contextlib.ExitStack() as stack:
        asker, cluster_id, problem = None, "", None
        if ask:
            from gismo_core.ray import cluster, holding

            try:
                ray = stack.enter_context(cluster.connected(address))
                asker, cluster_id = holding.Asker(ray), cluster.id_of(ray).hex()
            except GismoError as error:
                problem = str(error)
        yield Watch(store, asker, cluster_id, problem)


def look(store: Store, address: str | None) -> Look:
    """One look, with the cluster where it answers."""
    with watching(store, address, ask=True) as watch:
        return watch.look()


def any_of(tags: Iterable[TagInfo]) -> bool:
    """Does Ray keep anything there?"""
    from gismo_core.ray import record

    return any(one.tag & record.TAG_MASK == record.TAG for one in tags)


def show(seen: Look) -> None:
    """For people: each record."""
    if seen.held:
        show_table(
            ("kept for Ray", ">size", ">age", "job", "by", "node", "held by", "handle"),
            [
                (
                    one.kind,
                    size_text(one.nbytes),
                    age_text(one.created_unix_ns),
                    one.job,
                    one.made_by,
                    one.node[:12],
                    why or "-",
                    str(one.handle),
                )
                for one, why in zip(seen.held[:_SHOWN], seen.why, strict=False)
            ],
        )
    total = sum(one.nbytes for one in seen.held)
    click.echo(f"Ray keeps {len(seen.held)} objects, {size_text(total)}")
    if seen.problem:
        click.echo(f"what holds them is unknown: {seen.problem}")


def groups_text(seen: Groups) -> str:
    """For people: who made what Ray keeps."""
    table = table_text(
        ("JOB", "KEPT FOR RAY, MADE BY", "NODE", ">OBJECTS", ">BYTES", ">PINS", ">OLDEST", "HELD BY"),
        [
            (
                one.job,
                one.made_by,
                one.node[:12],
                str(one.objects),
                size_text(one.extent_bytes),
                str(one.pins),
                age_text(one.oldest_unix_ns),
                _held_by_text(one.held_by),
            )
            for one in seen.groups[:_GROUPS_SHOWN]
        ],
    )
    return table if seen.problem is None else f"{table}\nwhat holds them is unknown: {seen.problem}"


def _held_by_text(held_by: tuple[str, ...] | None) -> str:
    if held_by is None:
        return "-"
    return "; ".join(held_by[:2]) + (f"; {len(held_by) - 2} more" if len(held_by) > 2 else "")


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
