"""Records what a real Linux does with orders to its DAX bus, for tests/unit/deviceplugin/test_dax_kernel.py.

Run as root in a machine whose only CXL region is region0, of mode ram, of which nothing is used: it destroys what is in it. Such a
machine is a QEMU guest with a CXL type 3 device, Debian's kernel 6.12, and before it, in the guest:

    modprobe -a cxl_pci cxl_acpi cxl_mem cxl_port device_dax dax_cxl
    cxl create-region -m -t ram -d decoder0.0 -w 1 mem0
    python3 dax_record.py >dax_linux_6.12.json
"""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_REGION = Path("/sys/bus/cxl/devices/region0")
_DAX = _REGION / "dax_region0"
_DRIVER = Path("/sys/bus/dax/drivers/device_dax")
_MIB = 1 << 20
_SEED = 4
_ORDERS = 320


def text(path: Path) -> str:
    return path.read_text().strip()


def look(start: int) -> dict[str, Any]:
    """All devices: name, size, alignment, driver, minor, and pieces as offset in the region and bytes."""
    devices = []
    for one in sorted(_DAX.glob("dax0.*"), key=lambda path: int(path.name.rpartition(".")[2])):
        pieces = sorted(
            (int(text(each / "page_offset"), 0), int(text(each / "start"), 0), int(text(each / "end"), 0))
            for each in one.glob("mapping[0-9]*")
        )
        driver = (one / "driver").resolve().name if (one / "driver").is_symlink() else ""
        minor = int(text(one / "dev").partition(":")[2])
        where = [[first - start, last + 1 - first] for _, first, last in pieces]
        devices.append([one.name, int(text(one / "size")), int(text(one / "align")), driver, minor, where])
    group = _DAX / "dax_region"
    return {
        "devices": devices,
        "available": int(text(group / "available_size")),
        "seed": text(group / "seed"),
        "create": text(group / "create"),
    }


def order(where: str, what: str) -> str:
    """Written as one write; the name of the error, or ok."""
    group = {"create": _DAX / "dax_region", "delete": _DAX / "dax_region"}
    path = group.get(where, _DRIVER if where in ("bind", "unbind", "new_id") else _DAX) / where
    try:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, what.encode())
        finally:
            os.close(fd)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def orders(start: int) -> Iterator[tuple[str, str]]:
    """First those that are known to be of interest, then many at random."""

    def piece(first: int, behind: int) -> str:
        return f"{start + first * _MIB:x}-{start + behind * _MIB - 1:x}"

    yield from (("create", "1"), ("unbind", "dax0.0"), ("bind", "dax0.0"), ("new_id", "dax0.0"), ("dax0.0/size", "0"))
    yield from (("dax0.0/align", "4096"), ("bind", "dax0.0"), ("new_id", "dax0.0"), ("unbind", "dax0.0"))
    yield from (("dax0.0/size", "0"), ("bind", "dax0.0"), ("delete", "dax0.0"), ("delete", "dax0.7"), ("create", "2"))
    yield from (("create", "x"), ("new_id", "junk"), ("bind", "dax0.9"), ("unbind", "dax0.9"), ("create", "1"))
    yield from (("dax0.1/mapping", piece(2, 3)), ("dax0.1/mapping", piece(2, 4)), ("bind", "dax0.1"))
    yield from (("new_id", "dax0.1"), ("dax0.1/mapping", piece(8, 10)), ("dax0.1/mapping", piece(8, 10)))
    yield from (("unbind", "dax0.1"), ("dax0.1/size", str(2 * _MIB)), ("dax0.1/size", "0"))
    yield from (("dax0.1/mapping", piece(3, 5)), ("bind", "dax0.1"), ("new_id", "dax0.1"), ("dax0.1/size", "0"))
    yield from (("dax0.1/mapping", piece(4, 6)), ("bind", "dax0.1"), ("dax0.1/size", "0"), ("delete", "dax0.1"))
    yield from (("create", "1"), ("dax0.1/mapping", piece(4, 6)), ("bind", "dax0.1"), ("unbind", "dax0.1"))
    yield from (("dax0.1/size", "0"), ("delete", "dax0.1"))
    dice = random.Random(_SEED)
    for _ in range(_ORDERS):
        kind, name = dice.random(), f"dax0.{dice.randrange(4)}"
        if kind < 0.1:
            yield "create", "1"
        elif kind < 0.2:
            yield "delete", name
        elif kind < 0.35:
            yield f"{name}/size", str(dice.choice([0, 0, 0, 2, 4, 32, 64, 600, 3]) * _MIB)
        elif kind < 0.6:
            first = dice.choice(range(0, 512, 16)) if dice.random() < 0.85 else dice.randrange(0, 520)
            yield f"{name}/mapping", piece(first, first + dice.choice([16, 16, 32, 2, 1, 64]))
        elif kind < 0.65:
            yield f"{name}/align", dice.choice(["4096", "2097152", "1073741824", "777"])
        elif kind < 0.78:
            yield "bind", name
        elif kind < 0.86:
            yield "new_id", name
        else:
            yield "unbind", name
    yield "create", "1"
    yield "dax0.0/size", "0"


def main() -> None:
    start, size = int(text(_REGION / "resource"), 0), int(text(_REGION / "size"), 0)
    last = look(start)
    print(json.dumps({"kernel": os.uname().release, "start": start, "size": size, "look": last}))
    for where, what in orders(start):
        said: dict[str, Any] = {"write": where, "text": what, "result": order(where, what)}
        now = look(start)
        print(json.dumps(said if now == last else {**said, "look": now}))
        last = now
    subprocess.run(["modprobe", "kmem"], check=True)
    print(json.dumps({"load": "kmem", "look": look(start)}))
    said = {"write": "create", "text": "1", "result": order("create", "1")}
    print(json.dumps({**said, "look": look(start)}))


if __name__ == "__main__":
    main()
