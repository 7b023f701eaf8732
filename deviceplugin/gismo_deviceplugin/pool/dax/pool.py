"""A CXL region as a pool's memory (medium.Medium): found, carved, and what is in it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

import gismo_core
from gismo_deviceplugin.pool.dax.carver import Carver
from gismo_deviceplugin.pool.dax.memory import LabelEnds, Mapped
from gismo_deviceplugin.pool.dax.nodes import Nodes
from gismo_deviceplugin.pool.dax.region import Device, Match, Region, Span, find
from gismo_deviceplugin.pool.dax.sysfs import Sysfs
from gismo_deviceplugin.pool.dax.system import System
from gismo_deviceplugin.pool.label import END_BYTES, IDENTITY_ROOM_BYTES, LabelRange, begins_identity
from gismo_deviceplugin.pool.medium import Holders, NotThere, Progress, Unfit, check_coherence, format_store

_SUPERBLOCK_BYTES = 64 << 10  # more than it has, at either end of a store
_LABEL = str(uuid.UUID(int=0))  # in the checkpoint: for no store


class DaxPool:
    """One region of this node."""

    one_kernel = False
    is_resizable = False
    is_volatile = False

    def __init__(self, match: Match, system: System, nodes: Nodes, carver: Carver) -> None:
        self._match = match
        self._sysfs = Sysfs(system.sysfs)
        self._system = system
        self._nodes = nodes
        self._carver = carver
        self._region: Region | None = None
        self._ends: tuple[Device, Device] | None = None

    @property
    def region(self) -> Region:
        """As check() found it."""
        if self._region is None:
            raise ValueError("check() comes first")
        return self._region

    @property
    def capacity_bytes(self) -> int:
        """What is between the two ends of the label."""
        return self.region.usable_bytes - 2 * END_BYTES

    def check(self) -> None:
        """Find the region, and carve the ends of the label out of it."""
        self._region = region = find(self._match, self._sysfs.regions())
        self._sysfs.check_drivers()
        found = self._carver.carve(region.name, {region.head: _LABEL, region.tail: _LABEL})
        for why in found.refused.values():
            raise Unfit(f"the pool label's end: {why}", why.reason)
        self._ends = found.done[region.head], found.done[region.tail]

    def open_label(self) -> LabelEnds:
        """Through the two devices of its own."""
        if self._ends is None:
            raise ValueError("check() comes first")
        head = self._mapped(self._ends[0], END_BYTES)
        try:
            return LabelEnds(self.region.usable_bytes, head, self._mapped(self._ends[1], END_BYTES))
        except BaseException:
            head.close()
            raise

    def label_key(self) -> str:
        """Of the region since it was made: one that is made anew, over whatever memory, has another."""
        return self._sysfs.key(self.region.name)

    def check_blank(self) -> None:
        """Zero, or the beginning of a label whose formatting was cut off."""
        with contextlib.closing(self.open_label()) as ends:
            for end, where in ((ends.head, "begins"), (ends.tail, "ends")):
                found = end.read(0, END_BYTES)
                first, rest = found[:IDENTITY_ROOM_BYTES], found[IDENTITY_ROOM_BYTES:]
                if any(rest) or (any(first) and not begins_identity(first)):
                    raise Unfit(
                        f"{self.region.name} holds something that is not of Gismo's pools: its memory {where} with 2 MiB that are not "
                        f"zero ({found[:16].hex()}…), and is not written over. Where nobody needs it: docs/kubernetes.md, "
                        "Carving a DAX region, says how to be rid of it",
                        "HoldsOtherData",
                    )

    def path(self, store_uuid: str) -> Path:
        """Of the node that containers get."""
        return self._nodes.path(store_uuid)

    def users(self, store_uuid: str) -> tuple[str, ...]:
        """Processes that have the device of this store open, by whatever path."""
        number = self._nodes.number(store_uuid)
        return self._system.users(number) if number is not None else ()

    def carve(
        self, ranges: Iterable[LabelRange], coherence: str, progress: Progress | None = None
    ) -> Mapping[str, Unfit]:
        """Devices of exactly these ranges, each with its node."""
        wanted = {_span(one): one.store_uuid for one in ranges}
        if not wanted:
            return {}
        found = self._carver.carve(self.region.name, wanted)
        for span, device in found.done.items():
            if coherence == "software" and self._nodes.number(wanted[span]) != device.number:
                with contextlib.closing(self._mapped(device, span.size_bytes)) as memory:
                    memory.sync(
                        progress=progress
                    )  # nothing that this host has cached of an older owner may come to light
            self._nodes.make(wanted[span], device.number)
        for span in found.refused:
            self._nodes.remove(wanted[span])  # if it is there, it is not this store's any more
        return {wanted[span]: why for span, why in found.refused.items()}

    def drop_all_but(self, stores: frozenset[str], holders: Holders) -> None:
        """What the checkpoint has, and nobody knows any more; and nodes that are not their store's device any more."""
        carved = {one for one in self._carver.carved() if one.region == self.region.name and one.store_uuid != _LABEL}
        region = self._sysfs.region(self.region.name)
        there = {one.spans: one.number for one in region.devices if one.driver} if region is not None else {}
        for one in carved:
            if self._nodes.number(one.store_uuid) not in (None, there.get((one.span,))):
                self._nodes.remove(one.store_uuid)  # the region was made anew, and the number may be another's by now
        lost = {one for one in carved if one.store_uuid not in stores}
        unused = {one for one in lost if not holders(one.store_uuid) and not self.users(one.store_uuid)}
        for one in unused:
            self._nodes.remove(one.store_uuid)
        if unused:
            self._carver.free(self.region.name, {one.span: one.store_uuid for one in unused})

    def verify(self, one: LabelRange, coherence: str) -> None:
        """Is the store of this range in it? carve() comes first."""
        with contextlib.closing(self._opened(one)) as memory:
            memory.sync(0, _SUPERBLOCK_BYTES)  # what this node has cached of it must not be believed
            memory.sync(one.size_bytes - _SUPERBLOCK_BYTES, _SUPERBLOCK_BYTES)
        try:
            info = gismo_core.probe(self.path(one.store_uuid))
        except gismo_core.NotAStore as error:
            raise NotThere(f"there is no store in the range of {one.namespace}: {error}") from error
        except gismo_core.GismoError as error:
            raise Unfit(f"the store of {one.namespace} cannot be read: {error}") from error
        if info.store_uuid != uuid.UUID(one.store_uuid):
            raise Unfit(
                f"the range of {one.namespace} holds store {info.store_uuid}, which is not of this pool",
                "HoldsOtherData",
            )
        if info.size_bytes != one.size_bytes:
            raise Unfit(f"the store of {one.namespace} has {info.size_bytes} bytes, and its range {one.size_bytes}")
        check_coherence(one, info, coherence)

    def format(self, one: LabelRange, coherence: str, progress: Progress | None = None) -> None:
        """Over what lies there, since the label says that the range is new; but never over a store."""
        with contextlib.suppress(NotThere):
            self.verify(one, coherence)
            return
        format_store(self.path(one.store_uuid), one, coherence, progress, is_device=True)

    def release(self, one: LabelRange, coherence: str, progress: Progress | None = None) -> None:
        """Its node goes, then its device. With software coherence, what this node has cached goes to the medium first."""
        if coherence == "software" and self._nodes.number(one.store_uuid) is not None:
            with contextlib.suppress(OSError), contextlib.closing(self._opened(one)) as memory:
                memory.sync(progress=progress)
        self._nodes.remove(one.store_uuid)
        self._free(one)

    def zero(self, one: LabelRange, progress: Progress | None = None) -> None:
        """Carved once more, for this alone; without a node, as nobody is to open it."""
        span = _span(one)
        found = self._carver.carve(self.region.name, {span: one.store_uuid})
        for why in found.refused.values():
            raise why
        with contextlib.closing(self._mapped(found.done[span], one.size_bytes)) as memory:
            memory.zero(progress)
        self._free(one)

    def _free(self, one: LabelRange) -> None:
        for who in self._carver.free(self.region.name, {_span(one): one.store_uuid}).busy.values():
            raise Unfit(f"the range of {one.namespace} is still open in {who}", "RegionInUse")

    def _opened(self, one: LabelRange) -> Mapped:
        return Mapped(self._system.open(self.path(one.store_uuid)), one.size_bytes)

    def _mapped(self, device: Device, size_bytes: int) -> Mapped:
        return Mapped(self._nodes.open(device.number), size_bytes)


def _span(one: LabelRange) -> Span:
    return Span(one.offset_bytes, one.size_bytes)
