"""A kernel's DAX bus for tests: a tree of files as sysfs shows it, and writes into it that do as Linux' drivers/dax/bus.c does.

What it does was compared with what a Linux 6.12 did with the same orders (tests/unit/deviceplugin/dax_linux_6.12.json). Memory is
files in a folder, one for each range, which kernels of several hosts may share; a process of a test that opens a device has
to be told (users).
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gismo_deviceplugin.pool.dax.system import System

MIB = 1 << 20
_PAGE = 4096
_MAJOR = 252
_VALID_ALIGN = (4096, 2 * MIB, 1024 * MIB)
_BLOCK = 128 * MIB
_SUBSECTION = 2 * MIB  # what device_dax maps must begin and end at


class Killed(BaseException):
    """The agent is dead."""


@dataclass
class Device:
    """daxN.M."""

    number: int  # M
    minor: int
    align: int
    driver: str = ""
    ranges: list[tuple[int, int]] = field(default_factory=list)  # physical start, bytes
    has_page_map: bool = False  # left behind by a probe that failed: no probe succeeds any more

    @property
    def size(self) -> int:
        return sum(size for _, size in self.ranges)


@dataclass
class Region:
    """A CXL region with its DAX region."""

    number: int
    start: int
    size: int
    serial: int = 1
    align: int = 2 * MIB
    mode: str = "ram"
    uuid: str = ""
    has_dax: bool = True
    devices: dict[int, Device] = field(default_factory=dict)
    seed: str = ""
    youngest: str = ""

    @property
    def name(self) -> str:
        return f"region{self.number}"

    @property
    def available(self) -> int:
        return self.size - sum(device.size for device in self.devices.values())

    def device_name(self, device: Device) -> str:
        return f"dax{self.number}.{device.number}"

    def taken(self) -> list[tuple[int, int]]:
        return sorted(one for device in self.devices.values() for one in device.ranges)


class Kernel(System):
    """Of one host. memory: the folder that hosts share."""

    def __init__(self, root: Path, memory: Path | None = None) -> None:
        super().__init__(root)
        self.memory = memory
        self.regions: dict[int, Region] = {}
        self.known: set[str] = set()  # to device_dax
        self.kmem = False
        self.policy = "offline"
        self.failing: set[str] = set()  # devices whose next probe fails half way
        self.opened_by: dict[str, tuple[str, ...]] = {}  # device → who
        self.died: list[str] = []  # by SIGBUS
        self.nodes: dict[Path, tuple[int, int]] = {}
        self.log: list[str] = []
        self.left: int | None = None  # orders until the agent dies, before or after them
        (root / "bus/cxl/devices").mkdir(parents=True)
        (root / "bus/dax/devices").mkdir(parents=True)
        (root / "devices/system/memory").mkdir(parents=True)
        self.load("device_dax")

    # ---- what others than the agent do -----------------------------------------------------------------------------------

    def load(self, driver: str) -> None:
        """modprobe. device_dax knows no CXL device by itself; kmem takes all that have no driver."""
        folder = self.sysfs / "bus/dax/drivers" / driver
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("bind", "unbind", "new_id", "remove_id"):
            (folder / name).touch()
        self.kmem |= driver == "kmem"
        if driver == "kmem":
            for region, device in self._all():
                if not device.driver and any(_has_block(*one) for one in device.ranges):
                    device.driver = "kmem"
                    self._render(region, device)

    def set_policy(self, policy: str) -> None:
        """Of memory that is new."""
        self.policy = policy
        (self.sysfs / "devices/system/memory/auto_online_blocks").write_text(f"{policy}\n")

    def add(self, region: Region) -> Region:
        """As `cxl create-region` does: with a device over all of it."""
        self.regions[region.number] = region
        if region.has_dax:
            device = self._create(region)
            device.ranges.append((region.start, region.size))
            device.driver = "kmem" if self.kmem else ""
            region.seed = region.youngest = ""
        self._render_region(region)
        return region

    def remove_region(self, number: int) -> None:
        """As a reboot, or `cxl destroy-region`."""
        region = self.regions.pop(number)
        for device in region.devices.values():
            (self.sysfs / "bus/dax/devices" / region.device_name(device)).unlink()
        shutil.rmtree(self._folder(region))
        (self.sysfs / "bus/cxl/devices" / region.name).unlink()

    def device(self, name: str) -> Device:
        """By name; OSError ENODEV."""
        return self._find(name)[1]

    # ---- System ----------------------------------------------------------------------------------------------------------

    def write(self, attribute: Path, text: str) -> None:
        self._order(f"{attribute.name} {text}")
        parent = attribute.parent.name
        if parent == "device_dax":
            self._of_driver(attribute.name, text)
        elif parent == "dax_region":
            self._of_region(self.regions[int(attribute.parts[-3].removeprefix("dax_region"))], attribute.name, text)
        else:
            if not attribute.exists():
                raise _error(errno.ENOENT)
            region, device = self._find(parent)
            {"size": self._size, "mapping": self._mapping, "align": self._align}[attribute.name](region, device, text)
            self._render(region, device)
            self._render_attributes(region)
        self._after()

    def make_node(self, path: Path, number: tuple[int, int], mode: int) -> None:
        self._order(f"make_node {path.name} {number}")
        if path in self.nodes:
            raise _error(errno.EEXIST)
        self.nodes[path] = number
        file = self._file(number)
        if file is None:
            path.touch()
        else:
            os.link(file, path)
        self._after()

    def rename(self, old: Path, new: Path) -> None:
        self._order(f"rename {new.name}")
        new.unlink(missing_ok=True)  # rename(2) does nothing where both are links to one file
        old.rename(new)
        self.nodes[new] = self.nodes.pop(old)
        self._after()

    def remove(self, path: Path) -> None:
        if path in self.nodes:
            self._order(f"remove {path.name}")
            path.unlink()
            del self.nodes[path]
            self._after()

    def number(self, path: Path) -> tuple[int, int] | None:
        return self.nodes.get(path)

    def open(self, path: Path) -> int:
        file = self._file(self.nodes[path])
        if file is None:
            raise _error(errno.ENXIO)
        return os.open(file, os.O_RDWR)

    def users(self, number: tuple[int, int]) -> tuple[str, ...]:
        for region, device in self._all():
            if (_MAJOR, device.minor) == number:
                return self.opened_by.get(region.device_name(device), ())
        return ()

    # ---- orders ------------------------------------------------------------------------------------------------------------

    def _order(self, what: str) -> None:
        self._after()
        self.log.append(what)

    def _after(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise Killed

    def _of_region(self, region: Region, name: str, text: str) -> None:
        if name == "create":
            if text.strip() != "1":
                raise _error(errno.EINVAL)
            if not region.available:
                raise _error(errno.ENOSPC)
            self._render(region, self._create(region))
        elif name == "delete":
            device = next((one for one in region.devices.values() if region.device_name(one) == text.strip()), None)
            if device is None:
                raise _error(errno.ENXIO)
            if device.driver or device.ranges or not device.number:
                raise _error(errno.EBUSY)
            del region.devices[device.number]
            shutil.rmtree(self._folder(region) / f"dax_region{region.number}" / text.strip())
            (self.sysfs / "bus/dax/devices" / text.strip()).unlink()
            region.seed = "" if region.seed == text.strip() else region.seed
            region.youngest = "" if region.youngest == text.strip() else region.youngest
        else:
            raise _error(errno.EACCES)
        self._render_attributes(region)

    def _create(self, region: Region) -> Device:
        number = next(one for one in itertools.count() if one not in region.devices)
        minors = {device.minor for _, device in self._all()}
        device = Device(number, next(one for one in itertools.count() if one not in minors), region.align)
        region.devices[number] = device
        region.youngest = region.device_name(device)
        region.seed = region.seed or region.youngest
        return device

    def _size(self, region: Region, device: Device, text: str) -> None:
        try:
            size = int(text, 0)
        except ValueError:
            raise _error(errno.EINVAL) from None
        if size % max(device.align, _SUBSECTION):
            raise _error(errno.EINVAL)
        if device.driver:
            raise _error(errno.EBUSY)
        if size - device.size > region.available:
            raise _error(errno.ENOSPC)
        while device.size > size:
            start, last = device.ranges.pop()
            if (left := last - min(last, device.size + last - size)) > 0:
                device.ranges.append((start, left))
                break
        while device.size < size:
            start, free = _first_gap(region)
            more = min(free, size - device.size)
            if device.ranges and sum(device.ranges[-1]) == start:
                last, before = device.ranges.pop()
                device.ranges.append((last, before + more))
            else:
                device.ranges.append((start, more))

    def _mapping(self, region: Region, device: Device, text: str) -> None:
        found = re.fullmatch(r"(?:0x)?([0-9a-f]+)-(?:0x)?([0-9a-f]+)\n?", text)
        if not found:
            raise _error(errno.EINVAL)
        start, last = (int(one, 16) for one in found.groups())
        size = last + 1 - start
        if size % max(device.align, _SUBSECTION):
            return  # and says success (from 6.9 on)
        if not size:
            if device.ranges:
                raise _error(errno.EBUSY)
            return
        if (
            start < region.start
            or start + size > region.start + region.size
            or any(start < one + bytes_ and one < start + size for one, bytes_ in region.taken())
        ):
            raise _error(errno.ENOMEM)
        device.ranges.append((start, size))  # whether it has a driver or not

    def _align(self, region: Region, device: Device, text: str) -> None:
        if not text.strip().isdecimal():
            raise _error(errno.ENXIO)
        align = int(text)
        if align not in _VALID_ALIGN:
            raise _error(errno.EINVAL)
        if device.driver:
            raise _error(errno.EBUSY)
        if any(size % max(align, _SUBSECTION) for _, size in device.ranges):
            raise _error(errno.EINVAL)
        device.align = align

    def _of_driver(self, name: str, text: str) -> None:
        text = text.strip()
        if name == "new_id":
            if not re.fullmatch(r"dax\d+\.\d+", text):
                raise _error(errno.EINVAL)
            self.known.add(text)
            for region, device in self._all():
                if not device.driver and region.device_name(device) in self.known:
                    try:
                        self._probe(region, device)
                    except OSError:
                        continue
        elif name == "remove_id":
            if not re.fullmatch(r"dax\d+\.\d+", text):
                raise _error(errno.EINVAL)
            self.known.discard(text)  # one that has the driver keeps it
        elif name == "bind":
            region, device = self._find(text)
            if text not in self.known:
                raise _error(errno.ENODEV)
            if device.driver:
                raise _error(errno.EBUSY)
            self._probe(region, device)
        elif name == "unbind":
            region, device = self._find(text)
            if device.driver != "device_dax":
                raise _error(errno.ENODEV)
            self.died += self.opened_by.pop(text, ())
            device.driver, device.has_page_map = "", False
            self._render(region, device)
        else:
            raise _error(errno.EACCES)

    def _probe(self, region: Region, device: Device) -> None:
        name = region.device_name(device)
        if not device.size:
            raise _error(errno.ENXIO)
        if device.has_page_map:
            raise _error(errno.EINVAL)
        if name in self.failing or any(start % _SUBSECTION for start, _ in device.ranges):
            self.failing.discard(name)
            device.has_page_map = True
            raise _error(errno.EINVAL)
        device.driver = "device_dax"
        if region.seed == name:
            region.seed = ""
        self._render(region, device)
        self._render_attributes(region)

    # ---- the tree ----------------------------------------------------------------------------------------------------------

    def _folder(self, region: Region) -> Path:
        return self.sysfs / "devices/platform/ACPI0017:00/root0/decoder0.0" / region.name

    def _render_region(self, region: Region) -> None:
        folder = self._folder(region)
        folder.mkdir(parents=True)
        endpoint = self.sysfs / f"devices/platform/ACPI0017:00/root0/port1/endpoint{region.number + 2}"
        decoder = f"decoder{region.number + 2}.0"
        memory = self.sysfs / f"devices/pci0000:0c/0000:0c:00.0/mem{region.number}"
        (endpoint / decoder).mkdir(parents=True, exist_ok=True)
        memory.mkdir(parents=True, exist_ok=True)
        (memory / "serial").write_text(f"{region.serial:#x}\n")
        _link(endpoint / "uport", memory)
        files = {
            "size": f"{region.size:#x}",
            "resource": f"{region.start:#x}",
            "mode": region.mode,
            "uuid": region.uuid,
            "target0": decoder,
            "interleave_ways": "1",
        }
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")
        cxl = self.sysfs / "bus/cxl/devices"
        _link(cxl / region.name, folder)
        _link(cxl / decoder, endpoint / decoder)
        if region.has_dax:
            group = folder / f"dax_region{region.number}" / "dax_region"
            group.mkdir(parents=True)
            for name, text in {"align": str(region.align), "id": str(region.number), "size": str(region.size)}.items():
                (group / name).write_text(f"{text}\n")
            (group / "delete").touch()
            for device in region.devices.values():
                self._render(region, device)
            self._render_attributes(region)

    def _render_attributes(self, region: Region) -> None:
        group = self._folder(region) / f"dax_region{region.number}" / "dax_region"
        values = {"available_size": str(region.available), "seed": region.seed, "create": region.youngest}
        for name, text in values.items():
            (group / name).write_text(f"{text}\n")

    def _render(self, region: Region, device: Device) -> None:
        folder = self._folder(region) / f"dax_region{region.number}" / region.device_name(device)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        files = {
            "size": str(device.size),
            "align": str(device.align),
            "dev": f"{_MAJOR}:{device.minor}",
            "resource": f"{device.ranges[0][0] if device.ranges else region.start:#x}",
            "numa_node": "-1",
            "target_node": "1",
            "mapping": "",
        }
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n" if text else "")
        page = 0
        for index, (start, size) in enumerate(device.ranges):
            mapping = folder / f"mapping{index}"
            mapping.mkdir()
            (mapping / "start").write_text(f"{start:#x}\n")
            (mapping / "end").write_text(f"{start + size - 1:#x}\n")
            (mapping / "page_offset").write_text(f"{page:#x}\n")
            page += size // _PAGE
        if device.driver:
            _link(folder / "driver", self.sysfs / "bus/dax/drivers" / device.driver)
        _link(self.sysfs / "bus/dax/devices" / folder.name, folder)

    # ---- looking up ----------------------------------------------------------------------------------------------------------

    def _all(self) -> Iterable[tuple[Region, Device]]:
        return [(region, device) for region in self.regions.values() for device in region.devices.values()]

    def _find(self, name: str) -> tuple[Region, Device]:
        for region, device in self._all():
            if region.device_name(device) == name:
                return region, device
        raise _error(errno.ENODEV)

    def _file(self, number: tuple[int, int]) -> Path | None:
        """The memory that a device shows; None where it cannot be opened."""
        for region, device in self._all():
            if (_MAJOR, device.minor) == number and device.driver == "device_dax" and self.memory is not None:
                ((start, size),) = device.ranges
                file = self.memory / f"{start - region.start}-{size}"
                if not file.exists():
                    file.touch()
                    os.truncate(file, size)
                return file
        return None


def _has_block(start: int, size: int) -> bool:
    """kmem takes whole blocks of memory only."""
    return (start + _BLOCK - 1) // _BLOCK < (start + size) // _BLOCK


def _first_gap(region: Region) -> tuple[int, int]:
    at = region.start
    for start, size in region.taken():
        if start > at:
            return at, start - at
        at = start + size
    return at, region.start + region.size - at


def _link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
