"""Reading what a real Linux showed (dax_sysfs_6.12.json: a CXL type 3 device in QEMU, a region with two carved devices)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dax_kernel import MIB, Kernel
from dax_kernel import Region as Made
from gismo_deviceplugin.pool.dax import sysfs
from gismo_deviceplugin.pool.dax.carver import Carver
from gismo_deviceplugin.pool.dax.region import Device, Region, Span
from gismo_deviceplugin.pool.dax.sysfs import Sysfs
from gismo_deviceplugin.pool.medium import Unfit

RECORDED = Path(__file__).with_name("dax_sysfs_6.12.json")
HEAD, STORE = Span(0, 2 * MIB), Span(2 * MIB, 64 * MIB)
SEEN = Region(
    name="region0",
    start=0x390000000,
    size_bytes=512 * MIB,
    mode="ram",
    uuid="",
    serials=(1,),
    align_bytes=2 * MIB,
    is_divisible=True,
    devices=(
        Device("dax0.0", (HEAD,), "device_dax", 2 * MIB, (252, 0)),
        Device("dax0.1", (STORE,), "device_dax", 2 * MIB, (252, 1)),
    ),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The recorded tree as files."""
    for name, text in json.loads(RECORDED.read_text()).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:  # it can only be written to
            path.touch()
        elif text.startswith("-> "):
            path.symlink_to(text.removeprefix("-> "))
        else:
            path.write_text(text)
    return tmp_path


def test_what_linux_shows_is_understood(root: Path) -> None:
    seen = Sysfs(root)
    assert seen.regions() == (SEEN,)
    assert seen.region("region0") == SEEN
    assert seen.region("region1") is None
    seen.check_drivers()
    for path in (
        seen.region_attribute("region0", "create"),
        seen.device_attribute("region0", "dax0.1", "mapping"),
        seen.driver_attribute("new_id"),
    ):
        assert path.is_file(), path


def test_the_kernel_of_the_tests_shows_the_same(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    kernel = Kernel(tmp_path_factory.mktemp("sys"))
    kernel.set_policy("offline")
    kernel.add(Made(0, 0x390000000, 512 * MIB, serial=1))
    Carver(kernel, root / "carving", "boot").carve("region0", {HEAD: "label", STORE: "store"})
    assert Sysfs(kernel.sysfs).regions() == (SEEN,)
    recorded = json.loads(RECORDED.read_text())
    compared = 0
    for path in kernel.sysfs.rglob("*"):
        name = str(path.relative_to(kernel.sysfs))
        if path.is_file() and not path.is_symlink() and isinstance(recorded.get(name), str):
            assert path.read_text() == recorded[name], name
            compared += 1
    assert compared > 25


def test_no_cxl_no_region(tmp_path: Path) -> None:
    assert Sysfs(tmp_path).regions() == ()
    with pytest.raises(Unfit, match="modprobe device_dax"):
        Sysfs(tmp_path).check_drivers()


def test_a_region_that_is_being_set_up_is_none_yet(root: Path) -> None:
    (root / "bus/cxl/devices/region0/size").write_text("0x0\n")
    assert Sysfs(root).regions() == ()


def test_memory_that_would_be_brought_online_is_not_carved(root: Path) -> None:
    (root / "devices/system/memory/auto_online_blocks").write_text("online\n")
    Sysfs(root).check_drivers()  # kmem is not loaded
    (root / "bus/dax/drivers/kmem").mkdir()
    with pytest.raises(Unfit, match="memhp_default_state=offline") as caught:
        Sysfs(root).check_drivers()
    assert caught.value.reason == "OnlinePolicy"
    (root / "devices/system/memory/auto_online_blocks").unlink()  # no memory hotplug in this kernel
    Sysfs(root).check_drivers()


def test_what_changes_while_it_is_looked_at_is_looked_at_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = root / "bus/cxl/devices/region0/dax_region0/dax0.1/size"
    reads: list[str] = []
    real = sysfs._text

    def text(path: Path) -> str:
        if path.name == "size" and path.parent.name == "dax0.1":
            reads.append("now")
            if len(reads) == 1:
                return "0"  # emptied, after its mappings were read
        return real(path)

    monkeypatch.setattr(sysfs, "_text", text)
    assert Sysfs(root).regions() == (SEEN,)
    assert len(reads) == 2
    size.unlink()
    with pytest.raises(OSError):
        Sysfs(root).regions()
