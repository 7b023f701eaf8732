"""CXL regions and their DAX devices as sysfs shows them, and where in it what is written to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gismo_deviceplugin.pool.dax.region import DEVICE_DAX, KMEM, Device, Region, Span
from gismo_deviceplugin.pool.medium import Unfit

_CXL = "bus/cxl/devices"
_DRIVERS = "bus/dax/drivers"
_POLICY = "devices/system/memory/auto_online_blocks"
_REGION = re.compile(r"region\d+")
_DAX_REGION = re.compile(r"dax_region\d+")
_DEVICE = re.compile(r"dax(\d+)\.(\d+)")
_TARGET = re.compile(r"target\d+")
_MAPPING = re.compile(r"mapping\d+")
_LOOKS = 5  # what goes while it is looked at is looked at again


class Sysfs:
    """The tree below root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def regions(self) -> tuple[Region, ...]:
        """All CXL regions of this node that have bytes. OSError where they do not come to rest."""
        for left in reversed(range(_LOOKS)):
            try:
                return tuple(self._region(path) for path in self._paths(self._root / _CXL, _REGION) if _size(path))
            except OSError:
                if not left:
                    raise
        raise AssertionError

    def region(self, name: str) -> Region | None:
        """That one, as it is now."""
        return next((one for one in self.regions() if one.name == name), None)

    def key(self, name: str) -> str:
        """What tells a region from all others in this boot, also from one of the same name that is made later: sysfs makes it a new folder."""
        found = self.region(name)
        if found is None:
            raise Unfit(f"{name} has gone", "RegionMissing")
        made = (self._root / _CXL / name).stat().st_ino
        serials = ",".join(hex(serial) for serial in found.serials)
        return f"{name}:{made}:{found.start:#x}+{found.size_bytes}:{serials}"

    def check_drivers(self) -> None:
        """Are the drivers as they have to be? Unfit, if not."""
        drivers = self._root / _DRIVERS
        if not (drivers / DEVICE_DAX).is_dir():
            raise Unfit(f"the driver {DEVICE_DAX} is not loaded: `modprobe {DEVICE_DAX}`", "RegionUnfit")
        try:
            policy = (self._root / _POLICY).read_text().strip()
        except FileNotFoundError:
            return  # no memory hotplug
        if (drivers / KMEM).is_dir() and policy != "offline":
            raise Unfit(
                f"new memory is brought online by itself on this node (auto_online_blocks is {policy}), and the driver {KMEM} is "
                "loaded: a region that is made anew would become system RAM, and be written over. Boot with "
                "memhp_default_state=offline, or keep the module kmem from loading",
                "OnlinePolicy",
            )

    # ---- where is written ----------------------------------------------------------------------------------------------

    def region_attribute(self, region: str, name: str) -> Path:
        """Of a region's DAX region: create, delete."""
        return self._dax_region(region) / "dax_region" / name

    def device_attribute(self, region: str, device: str, name: str) -> Path:
        """Of a device: size, mapping, align."""
        return self._dax_region(region) / device / name

    def driver_attribute(self, name: str) -> Path:
        """Of device_dax: bind, unbind, new_id, remove_id."""
        return self._root / _DRIVERS / DEVICE_DAX / name

    def _dax_region(self, region: str) -> Path:
        return next(self._paths(self._root / _CXL / region, _DAX_REGION))

    # ---- reading ---------------------------------------------------------------------------------------------------------

    def _region(self, path: Path) -> Region:
        start = int(_text(path / "resource"), 0)
        dax = next(self._paths(path, _DAX_REGION), None)
        group = dax / "dax_region" if dax is not None and (dax / "dax_region").is_dir() else None
        devices = sorted(self._paths(dax, _DEVICE), key=_order) if dax is not None else []
        return Region(
            name=path.name,
            start=start,
            size_bytes=_size(path),
            mode=_text(path / "mode") if (path / "mode").exists() else "ram",
            uuid=_text(path / "uuid") if (path / "uuid").exists() else "",
            serials=tuple(serial for one in self._paths(path, _TARGET) for serial in self._serials(_text(one))),
            align_bytes=int(_text(group / "align")) if group is not None else None,
            is_divisible=group is not None and (group / "create").exists(),
            devices=tuple(_device(one, start) for one in devices),
        )

    def _serials(self, decoder: str) -> Iterator[int]:
        """Of the memory device whose decoder this is: the decoder lies below the device's endpoint port."""
        if decoder:
            path = (self._root / _CXL / decoder).resolve().parent / "uport" / "serial"
            if path.exists():
                yield int(_text(path), 0)

    @staticmethod
    def _paths(folder: Path, name: re.Pattern[str]) -> Iterator[Path]:
        if folder.is_dir():
            yield from sorted(one for one in folder.iterdir() if name.fullmatch(one.name))


def _device(path: Path, start: int) -> Device:
    mapped = []
    for one in path.iterdir():
        if _MAPPING.fullmatch(one.name) and one.is_dir():  # `mapping` itself is an attribute
            first, last = int(_text(one / "start"), 0), int(_text(one / "end"), 0)
            mapped.append((int(_text(one / "page_offset"), 0), Span(first - start, last + 1 - first)))
    spans = tuple(span for _, span in sorted(mapped))
    if sum(span.size_bytes for span in spans) != int(_text(path / "size")):
        raise OSError(f"{path.name} changes while it is looked at")
    major, minor = _text(path / "dev").split(":")
    driver = path / "driver"
    return Device(
        name=path.name,
        spans=spans,
        driver=driver.resolve().name if driver.is_symlink() else "",
        align_bytes=int(_text(path / "align")),
        number=(int(major), int(minor)),
    )


def _size(region: Path) -> int:
    """Of a region; 0 while it is being set up."""
    return int(_text(region / "size"), 0)


def _order(device: Path) -> int:
    return int(device.name.partition(".")[2])


def _text(path: Path) -> str:
    return path.read_text().strip()
