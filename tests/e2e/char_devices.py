"""Run in a privileged pod of a node (python3 - < char_devices.py): two tenants whose shares are character devices.

Each node of a cluster without CXL memory has harmless character devices that no container may open by itself: they stand for
DAX devices. All else is Gismo's own: the nodes, the marker, the plugin, the admission. Prints as JSON what it offers, and serves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path

from gismo_core import node_marker
from gismo_deviceplugin.admission import Admission
from gismo_deviceplugin.kubelet import pod_resources, registrar
from gismo_deviceplugin.kubelet.pod_resources import PodResources
from gismo_deviceplugin.kubelet.registrar import Registrar
from gismo_deviceplugin.kubelet.shares import Injection, Tenant
from gismo_deviceplugin.pool import state
from gismo_deviceplugin.pool.dax import nodes
from gismo_deviceplugin.pool.dax.nodes import Nodes
from gismo_deviceplugin.pool.dax.system import System
from gismo_deviceplugin.pool.state import StateDirectories

POOL = "chars"
STORES = {"one": "c0ffee00-0000-4000-8000-000000000001", "two": "c0ffee00-0000-4000-8000-000000000002"}
# Those that a container runtime lets every container open, or whose opening does something, are not among them.
_HARMLESS = ("fuse", "loop-control", "hpet", "vga_arbiter", "cpu_dma_latency", "udmabuf", "autofs", "mcelog")
_MISC_MAJOR = 10


def devices(node: Nodes) -> list[tuple[int, int]]:
    """Numbers of harmless devices of this machine that can be opened."""
    minors = {
        name: int(number) for number, name in (line.split() for line in Path("/proc/misc").read_text().splitlines())
    }
    found = []
    for name in _HARMLESS:
        if name in minors:
            number = (_MISC_MAJOR, minors[name])
            try:
                os.close(node.open(number))
            except OSError:
                continue
            found.append(number)
    return found


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--allow", action="append", default=[], help="Kubernetes namespaces whose pods may have a share"
    )
    parser.add_argument("--device-plugins", type=Path, default=registrar.FOLDER)
    parser.add_argument("--pod-resources", type=Path, default=pod_resources.SOCKET)
    parser.add_argument("--state", type=Path, default=state.ROOT)
    parser.add_argument("--devices", type=Path, default=nodes.FOLDER)
    given = parser.parse_args()
    made = Nodes(System(), given.devices)
    directories = StateDirectories(given.state)
    tenants = {}
    said = {}
    for (name, store), number in zip(STORES.items(), devices(made), strict=False):
        made.make(store, number)
        directories.prepare(store, 0)
        one = Tenant(
            POOL, name, store, 8, str(made.path(store)), True, str(directories.path(store)), "", Injection.OFF,
            frozenset(given.allow),
        )  # fmt: skip
        tenants[one] = True
        said[name] = {"resource": one.resource, "store": store, "major": number[0], "minor": number[1]}
    admission = Admission(directories, PodResources(given.pod_resources), node_marker.boot_id())
    plugins = Registrar(admission.before_start, given.device_plugins)
    await plugins.set_tenants(tenants)
    print(json.dumps(said), flush=True)
    await plugins.run()


if __name__ == "__main__":
    asyncio.run(main())
