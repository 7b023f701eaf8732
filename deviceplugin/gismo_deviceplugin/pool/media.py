"""From where the API says that a pool's memory is to that memory on this node."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from gismo_deviceplugin.pool.dax import nodes
from gismo_deviceplugin.pool.dax.carver import Carver
from gismo_deviceplugin.pool.dax.nodes import Nodes
from gismo_deviceplugin.pool.dax.pool import DaxPool
from gismo_deviceplugin.pool.dax.sysfs import Sysfs
from gismo_deviceplugin.pool.dax.system import System
from gismo_deviceplugin.pool.emulated import EmulatedPool
from gismo_deviceplugin.pool.medium import Medium
from gismo_deviceplugin.pool.view import Emulated, Source

CARVING = Path("/run/gismo/carving")


@dataclass(frozen=True, slots=True)
class Media:
    """Of this node, in this boot."""

    boot_id: str
    carving: Path = CARVING
    devices: Path = nodes.FOLDER
    system: System = field(default_factory=System)

    def __call__(self, source: Source) -> Medium:
        """The memory."""
        if isinstance(source, Emulated):
            return EmulatedPool(source.directory, source.capacity_bytes)
        carver = Carver(self.system, self.carving, self.boot_id)
        return DaxPool(source, self.system, Nodes(self.system, self.devices), carver)

    def path(self, source: Source, store_uuid: str) -> Path:
        """Of a store, on the node: a file, or a character device."""
        if isinstance(source, Emulated):
            return source.directory / store_uuid
        return Nodes(self.system, self.devices).path(store_uuid)

    def regions(self) -> str:
        """CXL regions of this node as JSON, for people who write a GismoPool."""
        found = [
            {
                "region": one.name,
                "sizeBytes": one.size_bytes,
                "serials": [hex(serial) for serial in one.serials],
                "uuid": one.uuid,
                "state": one.state,
            }
            for one in Sysfs(self.system.sysfs).regions()
        ]
        return json.dumps(found, separators=(",", ":"))
