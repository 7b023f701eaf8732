"""The kernel of the tests against a real one: the same orders, the same answers, the same devices afterwards.

dax_linux_6.12.json was recorded by tests/dax_record.py in a QEMU guest with a CXL type 3 device: one line for each order that
was written into sysfs, what the kernel said, and, where anything changed, what there was then.
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import dax_kernel

RECORDED = Path(__file__).with_name("dax_linux_6.12.json")


def look(kernel: dax_kernel.Kernel, region: dax_kernel.Region) -> dict[str, Any]:
    return {
        "devices": [
            [
                region.device_name(one),
                one.size,
                one.align,
                one.driver,
                [[start - region.start, size] for start, size in one.ranges],
            ]
            for _, one in sorted(region.devices.items())
        ],
        "available": region.available,
        "seed": region.seed,
        "create": region.youngest,
    }


def less_minors(seen: dict[str, Any]) -> dict[str, Any]:
    """Linux gives a minor that became free again some time later, the kernel of the tests at once, which is the harder case."""
    minors = [device[4] for device in seen["devices"]]
    assert len(set(minors)) == len(minors)
    return {**seen, "devices": [device[:4] + device[5:] for device in seen["devices"]]}


def test_it_does_as_linux_does(tmp_path: Path) -> None:
    first, *orders = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    assert first["kernel"].startswith("6.12.")
    kernel = dax_kernel.Kernel(tmp_path)
    region = kernel.add(dax_kernel.Region(0, first["start"], first["size"]))
    known = less_minors(first["look"])
    assert look(kernel, region) == known
    group = tmp_path / "bus/cxl/devices/region0/dax_region0"
    drivers = tmp_path / "bus/dax/drivers/device_dax"
    for number, order in enumerate(orders):
        if "load" in order:
            kernel.load(order["load"])
        else:
            where = order["write"]
            path = {"create": group / "dax_region/create", "delete": group / "dax_region/delete"}.get(where)
            path = path or (drivers if where in ("bind", "unbind", "new_id") else group) / where
            said = "ok"
            try:
                kernel.write(path, order["text"])
            except OSError as error:
                said = errno.errorcode[error.errno or 0]
            assert said == order["result"], (number, order)
        known = less_minors(order["look"]) if "look" in order else known
        assert look(kernel, region) == known, (number, order)
    assert len(orders) > 300
