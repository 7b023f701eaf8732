"""CXL regions and the DAX devices in them, as a frozen snapshot; and which region a pool means. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gismo_deviceplugin.pool.label import END_BYTES
from gismo_deviceplugin.pool.medium import Unfit

DEVICE_DAX = "device_dax"
KMEM = "kmem"
ALIGN_BYTES = 2 << 20  # in which ranges are given out


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Bytes of a region, from its start: the same on every node."""

    offset_bytes: int
    size_bytes: int

    @property
    def end_bytes(self) -> int:
        """The first byte behind it."""
        return self.offset_bytes + self.size_bytes

    def overlaps(self, other: Span) -> bool:
        """Do they share a byte?"""
        return self.offset_bytes < other.end_bytes and other.offset_bytes < self.end_bytes


@dataclass(frozen=True, slots=True)
class Device:
    """A DAX device, daxN.M."""

    name: str
    spans: tuple[Span, ...] = ()  # in the order in which they are mapped
    driver: str = ""  # empty: none
    align_bytes: int = ALIGN_BYTES
    number: tuple[int, int] = (0, 0)  # major, minor

    @property
    def is_first(self) -> bool:
        """The kernel makes it with the region and never deletes it."""
        return self.name.endswith(".0")


@dataclass(frozen=True, slots=True)
class Region:
    """A CXL region of this node."""

    name: str
    start: int  # physical address, of this node alone
    size_bytes: int
    mode: str = "ram"
    uuid: str = ""
    serials: tuple[int, ...] = ()  # of the memory devices that it is made of
    align_bytes: int | None = ALIGN_BYTES  # None: there is no DAX region in it
    is_divisible: bool = True
    devices: tuple[Device, ...] = ()

    @property
    def usable_bytes(self) -> int:
        """Of whole units of alignment."""
        return self.size_bytes // ALIGN_BYTES * ALIGN_BYTES

    @property
    def head(self) -> Span:
        """The pool label's, at its start."""
        return Span(0, END_BYTES)

    @property
    def tail(self) -> Span:
        """The pool label's, at its end."""
        return Span(self.usable_bytes - END_BYTES, END_BYTES)

    @property
    def state(self) -> str:
        """In one word, for people who look for a pool's memory."""
        if self.align_bytes is None:
            return "NoDax"
        drivers = {one.driver for one in self.devices if one.spans}
        if KMEM in drivers:
            return "SystemRAM"
        return "InUse" if drivers - {""} else "Idle"


@dataclass(frozen=True, slots=True)
class Match:
    """Which region a pool means: all that is given must fit."""

    size_bytes: int | None = None
    serial: str | None = None
    region: str | None = None
    uuid: str | None = None

    def __str__(self) -> str:
        size = size_text(self.size_bytes) if self.size_bytes is not None else None
        given = {"size": size, "serial": self.serial, "region": self.region, "uuid": self.uuid}
        return ", ".join(f"{name} {value}" for name, value in given.items() if value is not None)

    def fits(self, one: Region) -> bool:
        """Is it this one?"""
        return (
            (self.size_bytes is None or self.size_bytes == one.size_bytes)
            and (self.serial is None or number(self.serial) in one.serials)
            and (self.region is None or self.region == one.name)
            and (self.uuid is None or self.uuid.lower() == one.uuid.lower())
        )


def find(match: Match, regions: Sequence[Region]) -> Region:
    """The region that is meant, and that a pool can be made of; else Unfit."""
    fitting = [one for one in regions if match.fits(one)]
    if not fitting:
        there = listed(regions) if regions else "no CXL region at all"
        no_uuid = "Linux gives regions of mode ram no UUID: match by serial. " if match.uuid is not None else ""
        raise Unfit(
            f"this node has no region of {match}; there is {there}. {no_uuid}Make it again (`cxl create-region -m -t ram …`), or "
            "make the pool anew with what there is",
            "RegionMissing",
        )
    if len(fitting) > 1:
        raise Unfit(
            f"this node has several regions of {match}: {listed(fitting)}; add serial or region to match, in a new pool",
            "RegionAmbiguous",
        )
    check(fitting[0])
    return fitting[0]


def check(one: Region) -> None:
    """Can a pool be made of it? Unfit, if not."""
    if one.mode != "ram":
        raise Unfit(f"{one.name} is in mode {one.mode}, and can be divided only in mode ram", "RegionUnfit")
    if one.align_bytes is None:
        raise Unfit(f"{one.name} has no DAX region: `modprobe -a dax_cxl device_dax`", "RegionUnfit")
    if not one.is_divisible:
        raise Unfit(f"{one.name} is static: its DAX device cannot be divided", "RegionUnfit")
    if one.align_bytes > ALIGN_BYTES or ALIGN_BYTES % one.align_bytes:
        raise Unfit(
            f"{one.name} is divided in units of {size_text(one.align_bytes)} only, and Gismo gives out units of "
            f"{size_text(ALIGN_BYTES)}",
            "RegionUnfit",
        )
    if one.usable_bytes <= 2 * END_BYTES:
        raise Unfit(f"{one.name} has {size_text(one.size_bytes)}, and the pool label alone takes 4Mi", "RegionUnfit")
    online = [device.name for device in one.devices if device.driver == KMEM]
    if online:
        raise Unfit(
            f"memory of {one.name} is system RAM of this node ({', '.join(online)}), which writes into it: what a pool had in it "
            f"is lost. `daxctl reconfigure-device --mode=devdax --force {online[0]}` gives it back; keep the module kmem from "
            "loading, or set memhp_default_state=offline",
            "OnlinedAsRAM",
        )


def listed(regions: Iterable[Region]) -> str:
    """For a message."""
    return "; ".join(
        f"{one.name} of {size_text(one.size_bytes)}"
        + (f", serial {', '.join(hex(serial) for serial in one.serials)}" if one.serials else "")
        + (f", uuid {one.uuid}" if one.uuid else "")
        for one in regions
    )


def number(text: str) -> int | None:
    """A serial number as people write it, decimal or with 0x; None where it is none."""
    try:
        return int(text, 0)
    except ValueError:
        return None


def size_text(size_bytes: int) -> str:
    """As Kubernetes writes it."""
    for power, suffix in ((4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")):
        if size_bytes and size_bytes % 1024**power == 0:
            return f"{size_bytes // 1024**power}{suffix}"
    return str(size_bytes)
