"""Which steps lead from a region as it is to one in which certain spans are devices of their own. Pure.

The one who carries the steps out looks again afterwards and asks again, until there is no step left. So nothing need be
known of earlier steps, and one who was killed after any of them is continued by asking. See docs/kubernetes.md for whose a
device is: what is not exactly a wanted span, nor one that is to go, is another owner's, and is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gismo_deviceplugin.pool.dax.region import DEVICE_DAX, KMEM, Device, Region, Span, size_text
from gismo_deviceplugin.pool.medium import Unfit


@dataclass(frozen=True, slots=True)
class Step:
    """A change of one device."""

    device: str


@dataclass(frozen=True, slots=True)
class Create(Step):
    """Make an empty device; its name is the kernel's choice."""

    device: str = ""


@dataclass(frozen=True, slots=True)
class Align(Step):
    """Set its alignment to the region's."""

    align_bytes: int


@dataclass(frozen=True, slots=True)
class Map(Step):
    """Give an empty device these bytes."""

    span: Span


@dataclass(frozen=True, slots=True)
class Bind(Step):
    """Let it be opened and mapped."""


@dataclass(frozen=True, slots=True)
class Unbind(Step):
    """Let it be opened no more. Whoever maps it dies: only where nobody does."""

    number: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Empty(Step):
    """Take its bytes."""


@dataclass(frozen=True, slots=True)
class Forget(Step):
    """The driver shall not know its name any more: it would take whoever is called so next, and is another owner's, too."""


@dataclass(frozen=True, slots=True)
class Delete(Step):
    """Away with an empty one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What plan() found."""

    # Chains: a step that fails ends its own chain, and no other.
    chains: tuple[tuple[Step, ...], ...] = ()
    done: Mapping[Span, Device] = field(default_factory=dict)
    refused: Mapping[Span, Unfit] = field(default_factory=dict)


def plan(
    region: Region,
    wanted: frozenset[Span],
    going: frozenset[Span] = frozenset(),
    broken: frozenset[str] = frozenset(),
) -> Plan:
    """wanted: spans that are to be a device each. going: spans that were ours, and are to be nobody's.

    broken: devices that did not take their driver. The kernel never lets such a one have a driver again; another has to take
    its place.
    """
    done: dict[Span, Device] = {}
    chains: list[tuple[Step, ...]] = []
    spare: list[Device] = []
    foreign: list[Device] = []
    freed: list[Span] = []  # by a step of this plan: not free yet
    for device in region.devices:
        own = device.spans[0] if len(device.spans) == 1 else None
        if not device.spans:
            if not device.driver and device.name not in broken:
                spare.append(device)
        elif own in wanted and not device.driver and device.name in broken:
            chains.append(_freeing(device))
            freed.append(own)
        elif own in wanted and own not in done and device.driver in ("", DEVICE_DAX):
            if not device.driver:
                chains.append((*_aligned(device, region), Bind(device.name)))
            elif device.align_bytes != region.align_bytes:
                chains.append((Unbind(device.name, device.number),))
            else:
                done[own] = device
                continue
            freed.append(own)  # neither free nor done
        elif own in going and device.driver in ("", DEVICE_DAX):
            chains.append(_freeing(device))
            freed.append(own)
        elif _is_whole(device, region) and device.driver in ("", DEVICE_DAX):
            if wanted:
                chains.append(_freeing(device))
                freed.append(device.spans[0])
        else:
            foreign.append(device)
    refused = {span: why for span in wanted - done.keys() if (why := _refusal(span, region, foreign)) is not None}
    missing = sorted(
        span for span in wanted - done.keys() - refused.keys() if not any(span.overlaps(one) for one in freed)
    )
    for span, device in zip(missing, spare):  # noqa: B905  (either may be longer)
        chains.append((*_aligned(device, region), Map(device.name, span)))  # bound when it is seen to have it
    chains.extend((Create(),) for _ in missing[len(spare) :])
    return Plan(tuple(chains), done, refused)


def _aligned(device: Device, region: Region) -> tuple[Step, ...]:
    align = region.align_bytes
    return () if align is None or device.align_bytes == align else (Align(device.name, align),)


def _freeing(device: Device) -> tuple[Step, ...]:
    steps: list[Step] = [Unbind(device.name, device.number)] if device.driver else []
    steps += [Empty(device.name), Forget(device.name)]
    if not device.is_first:
        steps.append(Delete(device.name))
    return tuple(steps)


def _is_whole(device: Device, region: Region) -> bool:
    """The one that the kernel makes by itself."""
    return device.is_first and device.spans == (Span(0, region.size_bytes),)


def _refusal(span: Span, region: Region, foreign: list[Device]) -> Unfit | None:
    align = region.align_bytes or 1
    if span.offset_bytes % align or span.size_bytes % align or span.size_bytes <= 0:
        return Unfit(
            f"its range, {span.size_bytes} bytes at {span.offset_bytes}, is no multiple of {size_text(align)}, the alignment of "
            f"{region.name}",
            "Misaligned",
        )
    if span.offset_bytes < 0 or span.end_bytes > region.size_bytes:
        return Unfit(f"its range ends behind {region.name}, which has {size_text(region.size_bytes)}", "RangeTaken")
    for device in foreign:
        if any(span.overlaps(one) for one in device.spans):
            if device.driver == KMEM:
                return Unfit(f"{device.name} is system RAM of this node", "OnlinedAsRAM")
            return Unfit(
                f"bytes of its range are those of {device.name}, which is not of this pool: `daxctl disable-device "
                f"{device.name}` and `daxctl destroy-device {device.name}` free them, if nobody needs it",
                "RangeTaken",
            )
    return None
