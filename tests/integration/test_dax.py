"""Pools of CXL memory from `kubectl apply` to a share: an operator and the agents of two nodes, each with a kernel of the tests.

The kernel of the tests was compared with Linux (tests/unit/deviceplugin/test_dax_kernel.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from two_nodes import NODES, POOL, DaxCluster, played, two_nodes

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "dax" / "gismopool.yaml"
TEAM_A = {"name": "team-a", "size": "64Mi", "access": {"kubernetesNamespaces": ["team-a"]}}


@pytest.fixture
def world(installed: Any, control_plane: Any) -> Iterator[DaxCluster]:
    with two_nodes(installed, control_plane, DaxCluster) as made:
        assert isinstance(made, DaxCluster)
        yield made


def test_the_example_is_taken_as_it_is(client: Any) -> None:
    pools = client.resources.get(api_version="gismo.io/v1alpha1", kind="GismoPool")
    body = yaml.safe_load(EXAMPLE.read_text())
    made = pools.server_side_apply(body=body, name=body["metadata"]["name"], field_manager="kubectl").to_dict()
    pools.delete(name=body["metadata"]["name"])
    assert made["spec"]["source"] == {"dax": {"match": {"size": "512Gi"}}}
    assert made["spec"]["coherence"] == "hardware"


@pytest.mark.parametrize("coherence", ["hardware", "software"])
def test_the_example_is_ready_on_a_smaller_memory(world: DaxCluster, coherence: str) -> None:
    """512Mi in the place of 512Gi, and for the nodes of this test; all else as it stands in examples/dax."""
    text = EXAMPLE.read_text().replace("512Gi", "512Mi").replace("256Gi", "256Mi")
    assert "coherence: hardware" in text
    body = yaml.safe_load(text.replace("coherence: hardware", f"coherence: {coherence}"))
    body["metadata"]["name"] = POOL
    body["spec"]["nodeSelector"] = {"pool": POOL}
    world.regions = ("512",)
    resource = f"gismo.io/{POOL}.team-a"

    async def story() -> None:
        world.pools.server_side_apply(body=body, name=POOL, field_manager="kubectl")
        await world.ready()
        status = world.pools.get(name=POOL).to_dict()["status"]
        assert (status["capacity"], status["allocated"], status["free"]) == ("508Mi", "256Mi", "252Mi")
        pods = {}
        for node in NODES:
            await world.offered(node, resource)
            pods[node] = await world.kubelets[node].run_pod("team-a", f"ray-on-{node}", resource)
            answer = pods[node].answer
            (device,) = answer.devices
            store = device.container_path.rpartition("/")[2]
            assert device.container_path == f"/dev/gismo/{store}"
            assert device.host_path == str(world.folder / f"{node}-host" / "dev" / store)
            assert device.permissions == "rw"
            assert answer.envs["GISMO_STORE"] == f"dax:/dev/gismo/{store}"
        with world.open("node-a", pods["node-a"]) as here, world.open("node-b", pods["node-b"]) as there:
            handle = here.put(b"x" * 100_000)
            assert bytes(there.get(handle).data[:3]) == b"xxx"
        regions = json.loads(world.cluster.get(name="node-a").metadata.annotations["gismo.io/regions"])
        assert regions == [
            {"region": "region0", "sizeBytes": 512 << 20, "serials": ["0x1"], "uuid": "", "state": "InUse"}
        ]

    played(world, story)


# What each node has: region0 is good, region1 is divided in units of 1Gi, region2 is system RAM, 3 and 4 are alike.
REGIONS = ("512", "2048:1024", "256:2:kmem", "128", "128")
BAD: dict[str, tuple[dict[str, str], str, str]] = {
    "no region": ({"region": "region9"}, "RegionMissing", "this node has no region of region region9; there is region0 of 512Mi"),
    "another size": ({"size": "1Gi"}, "RegionMissing", "this node has no region of size 1Gi"),
    "another serial": ({"serial": "0x77"}, "RegionMissing", "no region of serial 0x77"),
    "a uuid": ({"uuid": "0a1b2c3d-0000-4000-8000-000000000001"}, "RegionMissing", "no UUID: match by serial"),
    "two regions": ({"size": "128Mi"}, "RegionAmbiguous", "region3 of 128Mi, serial 0x4; region4 of 128Mi, serial 0x5"),
    "alignment": ({"size": "2Gi"}, "RegionUnfit", "region1 is divided in units of 1Gi only, and Gismo gives out units of 2Mi"),
    "system RAM": ({"region": "region2"}, "OnlinedAsRAM", "daxctl reconfigure-device --mode=devdax --force dax2.0"),
}  # fmt: skip


def test_bad_matches_and_what_each_gets(world: DaxCluster) -> None:
    world.regions = REGIONS

    def degraded(pool: str) -> tuple[str, str, str]:
        return world.condition("Degraded", pool) or ("", "", "")

    async def said(pool: str, reason: str) -> str:
        await world.eventually(lambda: degraded(pool)[:2] == ("True", reason))
        assert (world.condition("Ready", pool) or ("",))[0] == "False"
        return degraded(pool)[2]

    async def story() -> None:
        for number, (match, _, _) in enumerate(BAD.values()):
            spec = {"source": {"dax": {"match": match}}, "coherence": "hardware"}
            world.apply_source(f"bad{number}", spec, POOL, TEAM_A)
        for number, (_, reason, words) in enumerate(BAD.values()):
            assert words in await said(f"bad{number}", reason)
        assert not any(kubelet.endpoints for kubelet in world.kubelets.values()), "nothing of them is offered"
        # One that is good, beside them.
        spec = {"source": {"dax": {"match": {"serial": "1"}}}, "coherence": "hardware"}
        world.apply_source(POOL, spec, POOL, TEAM_A)
        await world.ready()
        # And a second pool on the same memory.
        world.apply_source("second", spec, POOL, TEAM_A)
        assert f"this memory is pool {POOL}'s, as its label says, and cannot be second's too" in await said(
            "second", "PoolsOverlap"
        )
        await world.ready()

    played(world, story)
