"""The agent of a node with the kernel of the tests (dax_kernel.py) in Linux' place: a process that ends takes its kernel along."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dax_kernel
from gismo_deviceplugin.__main__ import options, run


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--memory", type=Path, required=True, help="what the hosts share")
    parser.add_argument("--host", type=Path, required=True, help="this host's own: sysfs, nodes, carving")
    parser.add_argument("--region", action="append", default=[], help="size[:alignment[:kmem]] in MiB")
    given, others = parser.parse_known_args()
    kernel = dax_kernel.Kernel(given.host / "sys", given.memory)
    kernel.set_policy("offline")
    for number, text in enumerate(given.region):
        size, align, driver = [*text.split(":"), "2", ""][:3] if ":" in text else [text, "2", ""]
        start = 0x1000000000 * (number + 1) + len(str(given.host)) * 0x40000000
        made = dax_kernel.Region(
            number, start, int(size) * dax_kernel.MIB, serial=number + 1, align=int(align) * dax_kernel.MIB
        )
        kernel.add(made)
        if driver:
            made.devices[0].driver = driver
            kernel._render(made, made.devices[0])
    chosen, level = options(others)
    return run(replace(chosen, system=kernel, devices=given.host / "dev", carving=given.host / "carving"), level)


if __name__ == "__main__":
    sys.exit(main())
