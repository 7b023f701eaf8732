"""What a container with a share gets, and who is refused."""

from __future__ import annotations

import pytest

from gismo_deviceplugin.kubelet import shares
from gismo_deviceplugin.kubelet.shares import Injection, Mount, Refused, Tenant

STORE = "0a1b2c3d-0000-4000-8000-000000000001"
TENANT = Tenant(
    pool="rack1",
    namespace="team-a",
    store_uuid=STORE,
    shares=3,
    memory="/var/lib/gismo/emulated/team-a",
    is_device=False,
    state=f"/var/lib/gismo/state/{STORE}",
    runtime="/var/lib/gismo/runtime/current",
)
SHARE = f"{STORE}_1"


def changed(**fields: object) -> Tenant:
    from dataclasses import replace

    return replace(TENANT, **fields)  # type: ignore[arg-type]


def test_a_file_is_mounted_and_a_device_is_given() -> None:
    answer = shares.answer(TENANT, SHARE)
    assert answer.envs == {
        "GISMO_STORE": f"file:/dev/gismo/{STORE}",
        "GISMO_STATE_DIR": f"/run/gismo/{STORE}",
        "GISMO_NODE_MARKER": f"/run/gismo/{STORE}/node.json",
        "GISMO_SHARE": SHARE,
        "PYTHONUSERBASE": "/opt/gismo",
    }
    assert set(answer.mounts) == {
        Mount(TENANT.memory, f"/dev/gismo/{STORE}"),
        Mount(TENANT.state, f"/run/gismo/{STORE}"),
        Mount(TENANT.runtime, "/opt/gismo", read_only=True),
    }
    assert answer.devices == ()
    device = shares.answer(changed(is_device=True, memory=f"/var/lib/gismo/dev/{STORE}/memory"), SHARE)
    assert device.envs["GISMO_STORE"] == f"dax:/dev/gismo/{STORE}"
    assert device.devices == (Mount(f"/var/lib/gismo/dev/{STORE}/memory", f"/dev/gismo/{STORE}"),)
    assert all(mount.container_path != f"/dev/gismo/{STORE}" for mount in device.mounts)


@pytest.mark.parametrize(
    ("injection", "variable"), [(Injection.USER_SITE, "PYTHONUSERBASE"), (Injection.PYTHON_PATH, "PYTHONPATH")]
)
def test_how_the_package_gets_in(injection: Injection, variable: str) -> None:
    envs = shares.answer(changed(injection=injection), SHARE).envs
    assert {name for name in envs if name.startswith("PYTHON")} == {variable}


def test_an_image_that_has_the_package_gets_nothing_of_it() -> None:
    answer = shares.answer(changed(injection=Injection.OFF), SHARE)
    assert not [name for name in answer.envs if name.startswith("PYTHON")]
    assert TENANT.runtime not in {mount.host_path for mount in answer.mounts}


def test_the_answer_holds_nothing_that_can_be_given_anew() -> None:
    """The kubelet replays it for years: a store that took the place of another must have other paths and other shares."""
    new = changed(store_uuid=STORE[:-1] + "2", state="/var/lib/gismo/state/new")
    old_answer, new_answer = shares.answer(TENANT, SHARE), shares.answer(new, shares.ids(new)[0])
    assert old_answer.envs["GISMO_STORE"] != new_answer.envs["GISMO_STORE"]
    assert not set(shares.ids(TENANT)) & set(shares.ids(new))


def test_one_share_of_this_store_or_a_word_that_says_what_to_do() -> None:
    first, second, _ = shares.ids(TENANT)
    shares.check_one(TENANT, [first])
    with pytest.raises(Refused, match=r"asks for 2: write `gismo.io/rack1.team-a: 1`"):
        shares.check_one(TENANT, [first, second])
    with pytest.raises(Refused, match="delete the pod"):
        shares.check_one(changed(store_uuid=STORE[:-1] + "2"), [first])
