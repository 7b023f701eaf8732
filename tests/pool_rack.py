"""Several nodes' parts in one pool, with the API between them: what an operator and agents do, without either."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

from gismo_core import node_marker
from gismo_deviceplugin.pool.emulated import EmulatedPool
from gismo_deviceplugin.pool.label import END_BYTES, Label, State
from gismo_deviceplugin.pool.media import Media
from gismo_deviceplugin.pool.member import Member, Report
from gismo_deviceplugin.pool.state import StateDirectories
from gismo_deviceplugin.pool.view import Emulated, NodeView, PoolView, RangeView, Source

MIB = 1 << 20
SIZE = 32 * MIB
CAPACITY = 256 * MIB


def ranged(name: str, at: int = 0, number: int = 1) -> RangeView:
    return RangeView(name, str(uuid.UUID(int=number)), END_BYTES + at * SIZE, SIZE, "hardware")


@dataclass
class Rack:
    """The API, as an operator and the agents write it, and the memory of the nodes."""

    memory: Path
    states: Path
    nodes: dict[str, NodeView] = field(default_factory=dict)
    ranges: dict[str, RangeView] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)
    directories: dict[str, Path] = field(default_factory=dict)
    boots: dict[str, str] = field(default_factory=dict)
    holders: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # store → Gismo namespace, also of those that are gone
    pool: str = "rack1"
    capacity: int = CAPACITY
    version: int = 0
    now: float = 0.0

    def add(self, *names: str) -> None:
        for name in names:
            self.nodes[name] = NodeView(name, len(self.nodes), writer=not self.nodes)
            self.start(name)
        self.bump()

    def media(self, name: str) -> Media:
        """The memory as that node has it."""
        return Media(self.boots.get(name) or node_marker.boot_id())

    def source(self, name: str) -> Source:
        """As its GismoNode has it."""
        return Emulated(self.directories.get(name, self.memory), self.capacity)

    def start(self, name: str) -> None:
        """An agent, anew."""
        self.members[name] = Member(
            StateDirectories(self.states / name),
            lambda store: self.holders.get((name, self.names.get(store, "")), ()),
            self.media(name),
            self.boots.get(name),
            clock=lambda: self.now,
        )

    def bump(self) -> None:
        self.version += 1
        self.nodes = {name: replace(one, layout_version=self.version) for name, one in self.nodes.items()}

    def ask(self, *ranges: RangeView) -> None:
        """As the operator does it: what changes has the number of the layout that it changes in."""
        self.bump()
        before = {one.store_uuid: one for one in self.ranges.values()}
        for one in ranges:
            old = before.get(one.store_uuid)
            is_same = old is not None and replace(one, layout_version=old.layout_version) == old
            before[one.store_uuid] = old if is_same else replace(one, layout_version=self.version)  # type: ignore[assignment]
        self.ranges = {one.namespace: before[one.store_uuid] for one in ranges}
        self.names |= {one.store_uuid: one.namespace for one in ranges}

    def step(self, name: str) -> Report:
        """A round; a second one in a new boot, when the GismoNode shows it."""
        boot_id = self.nodes[name].boot_id
        report = self.step_once(name)
        return report if boot_id == report.boot_id else self.step_once(name)

    def step_once(self, name: str) -> Report:
        me = self.nodes[name]
        view = PoolView(
            self.pool,
            self.source(name),
            me,
            tuple(one for one in self.nodes.values() if one is not me),
            tuple(self.ranges.values()),
        )
        report = self.members[name].step(view)
        self.reports[name] = report
        self.nodes[name] = replace(
            me,
            boot_id=report.boot_id,
            nonce=report.nonce,
            reached=report.layout_version,
            released=report.released,
            strangers=frozenset(report.strangers),
        )
        return report

    def settle(self, rounds: int = 4) -> dict[str, Report]:
        for _ in range(rounds):
            for name in list(self.nodes):
                self.step(name)
        return self.reports

    def layout_stores(self) -> dict[str, State]:
        file = EmulatedPool(self.memory, self.capacity).open_label()
        try:
            layout = Label(file).layout()
            assert layout is not None
            return {one.namespace: one.state for one in layout.ranges}
        finally:
            file.close()
