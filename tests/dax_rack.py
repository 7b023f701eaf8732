"""Nodes that share a CXL memory: each with a kernel of its own, its own physical addresses, and its own end of the memory."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path

import dax_kernel
from gismo_deviceplugin.pool.dax.region import Match
from gismo_deviceplugin.pool.media import Media
from gismo_deviceplugin.pool.view import Source
from pool_rack import MIB, Rack

SIZE = 512 * MIB


@dataclass
class DaxRack(Rack):
    """memory: the folder that stands for what the kernels share."""

    kernels: dict[str, dax_kernel.Kernel] = field(default_factory=dict)
    match: Match = field(default_factory=lambda: Match(size_bytes=SIZE))
    ends: dict[str, Path] = field(default_factory=dict)  # of a node that sees another memory

    def kernel(self, name: str) -> dax_kernel.Kernel:
        if name not in self.kernels:
            made = dax_kernel.Kernel(self.states / f"{name}-sys", self.ends.get(name, self.memory))
            made.set_policy("offline")
            made.add(self.region(name))
            self.kernels[name] = made
        return self.kernels[name]

    def region(self, name: str, size: int = SIZE) -> dax_kernel.Region:
        """Where physical memory begins is another place on each node."""
        return dax_kernel.Region(0, 0x390000000 + len(name) * 0x40000000 + ord(name[0]) * 0x10000000, size)

    def boot(self, name: str) -> str:
        return self.boots.setdefault(name, str(uuid.uuid5(uuid.NAMESPACE_DNS, name)))

    def media(self, name: str) -> Media:
        return Media(self.boot(name), self.states / f"{name}-carving", self.states / f"{name}-dev", self.kernel(name))

    def source(self, name: str) -> Source:
        return self.match

    def node(self, name: str, store_uuid: str) -> Path:
        """What containers of that node get."""
        return self.states / f"{name}-dev" / store_uuid

    def reboot(self, name: str) -> None:
        """The kernel forgets its devices; the region comes up as new, its numbers in another order."""
        kernel = self.kernels[name]
        kernel.remove_region(0)
        for path in list(kernel.nodes):
            kernel.remove(path)
        kernel.known.clear()
        kernel.add(self.region(name))
        self.boots[name] = str(uuid.uuid4())
        self.start(name)

    def spans(self, name: str) -> dict[str, tuple[int, int]]:
        """Devices of a node that can be opened: name → offset and bytes in the region."""
        region = self.kernels[name].regions[0]
        return {
            region.device_name(one): (one.ranges[0][0] - region.start, one.ranges[0][1])
            for one in region.devices.values()
            if one.driver == "device_dax" and len(one.ranges) == 1
        }
