"""Which region a pool means, and what is said where there is none: the table of bad input for pools of CXL memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gismo_deviceplugin.pool.dax.plan import Bind, Create, Map, Plan, plan
from gismo_deviceplugin.pool.dax.region import Device, Match, Region, Span, find
from gismo_deviceplugin.pool.medium import Unfit

GIB, MIB = 1 << 30, 1 << 20
ONE = Region("region0", 0x1000000000, 512 * GIB, serials=(0xA1,))
OTHER = Region("region1", 0x9000000000, 256 * GIB, serials=(0xB2, 0xB3), uuid="0a1b2c3d-0000-4000-8000-000000000001")


@pytest.mark.parametrize(
    "match",
    [
        Match(size_bytes=512 * GIB),
        Match(serial="0xa1"),
        Match(serial="161"),
        Match(region="region0"),
        Match(size_bytes=512 * GIB, serial="0xA1", region="region0"),
    ],
)
def test_all_that_is_given_fits(match: Match) -> None:
    assert find(match, (ONE, OTHER)) == ONE


def test_one_of_several_devices_and_a_uuid() -> None:
    assert find(Match(serial="0xb3"), (ONE, OTHER)) == OTHER
    assert find(Match(uuid=OTHER.uuid.upper()), (ONE, OTHER)) == OTHER


BAD: dict[str, tuple[Match, tuple[Region, ...], str, str]] = {
    "no region": (Match(size_bytes=512 * GIB), (), "RegionMissing", "no region of size 512Gi; there is no CXL region at all"),
    "another size": (
        Match(size_bytes=1024 * GIB),
        (ONE, OTHER),
        "RegionMissing",
        "no region of size 1Ti; there is region0 of 512Gi, serial 0xa1; region1 of 256Gi, serial 0xb2, 0xb3",
    ),
    "another serial": (Match(serial="7"), (ONE,), "RegionMissing", "no region of serial 7"),
    "a serial that is none": (Match(serial="abc"), (ONE,), "RegionMissing", "no region of serial abc"),
    "another name": (Match(region="region7"), (ONE,), "RegionMissing", "no region of region region7"),
    "one of two fits": (Match(size_bytes=512 * GIB, region="region1"), (ONE, OTHER), "RegionMissing", "512Gi, region region1"),
    "a uuid": (Match(uuid="x"), (ONE,), "RegionMissing", "gives regions of mode ram no UUID: match by serial"),
    "two fit": (
        Match(size_bytes=512 * GIB),
        (ONE, replace(OTHER, size_bytes=512 * GIB)),
        "RegionAmbiguous",
        "add serial or region to match",
    ),
    "persistent": (Match(region="region0"), (replace(ONE, mode="pmem"),), "RegionUnfit", "is in mode pmem"),
    "no dax": (Match(region="region0"), (replace(ONE, align_bytes=None),), "RegionUnfit", "modprobe -a dax_cxl device_dax"),
    "static": (Match(region="region0"), (replace(ONE, is_divisible=False),), "RegionUnfit", "cannot be divided"),
    "alignment 1Gi": (
        Match(region="region0"),
        (replace(ONE, align_bytes=GIB),),
        "RegionUnfit",
        "divided in units of 1Gi only, and Gismo gives out units of 2Mi",
    ),
    "too small": (Match(region="region0"), (replace(ONE, size_bytes=4 * MIB),), "RegionUnfit", "the pool label alone takes 4Mi"),
    "system RAM": (
        Match(region="region0"),
        (replace(ONE, devices=(Device("dax0.0", (Span(0, 512 * GIB),), "kmem"),)),),
        "OnlinedAsRAM",
        "`daxctl reconfigure-device --mode=devdax --force dax0.0`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_so_is_said_in_words_that_help(case: str) -> None:
    match, regions, reason, words = BAD[case]
    with pytest.raises(Unfit) as caught:
        find(match, regions)
    assert caught.value.reason == reason
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("devices", "state"),
    [
        ((Device("dax0.0", (Span(0, 512 * GIB),)),), "Idle"),
        ((Device("dax0.0"),), "Idle"),
        ((Device("dax0.0", (Span(0, 2 * MIB),), "device_dax"),), "InUse"),
        ((Device("dax0.0", (Span(0, 512 * GIB),), "kmem"),), "SystemRAM"),
    ],
)
def test_its_state_for_people(devices: tuple[Device, ...], state: str) -> None:
    assert replace(ONE, devices=devices).state == state
    assert replace(ONE, align_bytes=None).state == "NoDax"


# ---- what plan() refuses -------------------------------------------------------------------------------------------------

EMPTY = replace(ONE, devices=(Device("dax0.0"),))


@pytest.mark.parametrize(
    ("span", "region", "reason"),
    [
        (Span(3 * MIB, 32 * MIB), EMPTY, "Misaligned"),
        (Span(2 * MIB, 33 * MIB), EMPTY, "Misaligned"),
        (Span(2 * MIB, 0), EMPTY, "Misaligned"),
        (Span(2 * MIB, 32 * MIB), replace(EMPTY, align_bytes=GIB), "Misaligned"),
        (Span(512 * GIB - 2 * MIB, 4 * MIB), EMPTY, "RangeTaken"),
        (Span(2 * MIB, 32 * MIB), replace(ONE, devices=(Device("dax0.3", (Span(4 * MIB, 2 * MIB),)),)), "RangeTaken"),
        (Span(2 * MIB, 32 * MIB), replace(ONE, devices=(Device("dax0.3", (Span(4 * MIB, 2 * MIB),), "kmem"),)), "OnlinedAsRAM"),
        (
            Span(2 * MIB, 32 * MIB),
            replace(ONE, devices=(Device("dax0.3", (Span(2 * MIB, 32 * MIB), Span(GIB, 2 * MIB)), "device_dax"),)),
            "RangeTaken",
        ),
    ],
)  # fmt: skip
def test_spans_that_cannot_be_carved(span: Span, region: Region, reason: str) -> None:
    good = Span(64 * GIB, GIB)
    found = plan(region, frozenset({span, good}))
    assert {one: why.reason for one, why in found.refused.items()} == {span: reason}
    assert found.chains, "the others are carved"


def test_plans() -> None:
    wanted = Span(2 * MIB, 32 * MIB)
    assert plan(ONE, frozenset()) == Plan(), "nothing is touched for nothing"
    assert plan(EMPTY, frozenset({wanted})).chains == ((Map("dax0.0", wanted),),)
    mapped = replace(ONE, devices=(Device("dax0.0", (wanted,)),))
    assert plan(mapped, frozenset({wanted})).chains == ((Bind("dax0.0"),),)
    done = replace(ONE, devices=(Device("dax0.0", (wanted,), "device_dax"),))
    assert plan(done, frozenset({wanted})) == Plan(done={wanted: done.devices[0]})
    more = Span(64 * MIB, 32 * MIB)
    assert plan(done, frozenset({wanted, more})).chains == ((Create(),),)
