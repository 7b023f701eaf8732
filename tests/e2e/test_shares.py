"""Shares on real kubelets: pods come and go while kubelets restart, agents die, stores fail, and Gismo is upgraded."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator

import pytest

from e2e import cluster, gismo
from e2e.holders import Holders, accounted
from e2e.waiting import READY_S, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

POOL, NAMESPACE = "rack1", "team-a"
RESOURCE = f"gismo.io/{POOL}.{NAMESPACE}"
AGENT = "python3 -m gismo_deviceplugin"
_REPLICAS = 6


@pytest.fixture
def holders(emulated_pool: str) -> Iterator[Holders]:
    """Running, and all gone afterwards."""
    made = Holders("default", RESOURCE)
    made.start(_REPLICAS)
    made.until_running(_REPLICAS, READY_S)
    yield made
    made.remove(READY_S)


def all_accounted_for(holders: Holders) -> None:
    """Whoever runs holds a share, by name, and nobody else does."""

    def said() -> set[str]:
        return {who.split(" ")[0] for found in accounted(NAMESPACE).values() for who in found}

    def running() -> set[str]:
        return {f"default/{one['metadata']['name']}" for one in holders.running()}

    until(lambda: said() == running(), 60, lambda: f"said to hold shares: {said()}; running: {running()}")


def come_through(holders: Holders) -> None:
    """As many run as should, none has read a wrong byte or ended by itself, and each share is accounted for."""
    holders.until_running(_REPLICAS, READY_S)
    assert not holders.ended_badly()
    all_accounted_for(holders)


def shake(holders: Holders, workers: list[cluster.Node], kubelets: int, agents: int, seed: int) -> None:
    """So many restarts of kubelets and kills of agents in a random order, a pod replaced with each."""
    chance = random.Random(seed)
    print(f"seed {seed}")
    blows = ["kubelet"] * kubelets + ["agent"] * agents
    chance.shuffle(blows)
    for number, blow in enumerate(blows):
        node = chance.choice(workers)
        running = holders.running()
        if running:
            holders.delete(chance.choice(running)["metadata"]["name"])
        if blow == "kubelet":
            cluster.restart_kubelet(node)
        else:
            until(functools.partial(cluster.kill, node, AGENT), READY_S)
        print(f"{number + 1}/{len(blows)}: {blow} of {node.name}", flush=True)
        if chance.random() < 0.5:
            until(holders.running, READY_S)


@pytest.mark.parametrize(
    ("kubelets", "agents"), [(5, 10), pytest.param(20, 50, marks=[pytest.mark.long, pytest.mark.timeout(3600)])]
)
def test_kubelets_restart_and_agents_die(
    holders: Holders, workers: list[cluster.Node], kubelets: int, agents: int
) -> None:
    lived = {one["metadata"]["uid"] for one in holders.running()}
    shake(holders, workers, kubelets, agents, seed=random.randrange(1 << 32))
    come_through(holders)
    restarted = {
        one["metadata"]["name"]: one["status"]["containerStatuses"][0]["restartCount"]
        for one in holders.running()
        if one["metadata"]["uid"] in lived
    }
    assert not any(restarted.values()), restarted


def test_a_store_that_is_not_as_it_should_be_and_is_again(holders: Holders) -> None:
    (store,) = {holders.said(one)["store"] for one in holders.running()}
    path = cluster.shared() / store
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size + 4096)  # another size than the range's: not healthy
    try:
        until(lambda: not gismo.allocatable(RESOURCE), 60)
        holders.scale(_REPLICAS + 1)
        until(lambda: len(holders.pods()) > _REPLICAS, 30)
        assert len(holders.running()) == _REPLICAS  # who has a share goes on; the new one waits
    finally:
        with path.open("r+b") as file:
            file.truncate(size)
    holders.until_running(_REPLICAS + 1, READY_S)
    holders.scale(_REPLICAS)
    come_through(holders)


def test_an_upgrade_with_old_and_new_side_by_side(holders: Holders) -> None:
    before = gismo.agents()
    gismo.upgrade_to_another_tag()
    try:
        assert not set(before) & set(gismo.agents())
        come_through(holders)
        for one in holders.running()[:2]:  # their followers need shares of the new agents
            holders.delete(one["metadata"]["name"])
        come_through(holders)
    finally:
        gismo.install()
    come_through(holders)
