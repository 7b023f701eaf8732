"""The operator as a process on a real API server: it takes up pools, repairs, takes over, and ends cleanly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cleaning import remove_all
from resources import Resources

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
POOL = "rack8"
AGENT = {"gismo.io/regions": "[]"}  # as an agent writes it to its Node
_WAIT_S = 60.0


def eventually(what: Callable[[], bool], within_s: float = _WAIT_S) -> None:
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end, f"not within {within_s:.0f} s"
        time.sleep(0.05)


class Operators:
    """Replicas as real processes."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self._kubeconfig = kubeconfig
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        log = self._folder / f"operator-{len(self.processes)}.log"
        command = [sys.executable, "-m", "gismo_operator", "--kubeconfig", str(self._kubeconfig), *more]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=ROOT / "operator", stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self.processes.append(process)
        return process

    def log(self, process: subprocess.Popen[bytes]) -> str:
        return (self._folder / f"operator-{self.processes.index(process)}.log").read_text()

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def operators(client: Any, control_plane: Any, tmp_path: Path) -> Iterator[Operators]:
    made = Operators(control_plane.kubeconfig(), tmp_path)
    yield made
    made.end()


class World(Resources):
    """What the tests look at and change."""

    def add_node(self, name: str, annotations: dict[str, str] = AGENT) -> None:
        metadata = {"name": name, "annotations": annotations, "labels": {"pool": POOL}}
        self.cluster.create(body={"apiVersion": "v1", "kind": "Node", "metadata": metadata})

    def apply(self, *names: str) -> None:
        self.apply_pool(POOL, {"capacity": "1Gi"}, *({"name": name, "size": "64Mi"} for name in names))

    def namespaces(self) -> dict[str, str]:
        """Name → when it was made and what it is."""
        return {
            one.spec.namespace: one.metadata.uid for one in self.ranges.get(field_selector=f"spec.pool={POOL}").items
        }

    def hosts(self) -> dict[str, int]:
        return {one.spec.node: one.spec.hostId for one in self.nodes.get(field_selector=f"spec.pool={POOL}").items}

    def holder(self) -> str | None:
        found = [one for one in self.leases.get(namespace="default").items if one.metadata.name == "gismo-operator"]
        return found[0].spec.holderIdentity if found else None


@pytest.fixture
def world(client: Any) -> Iterator[World]:
    made = World(client)
    for name in ("a", "b"):
        made.add_node(name)
    yield made
    remove_all(made.pools, made.ranges, made.nodes, made.cluster)
    for one in made.leases.get(namespace="default").items:
        made.leases.delete(name=one.metadata.name, namespace="default")


def test_it_takes_up_a_pool_repairs_it_and_ends_cleanly(world: World, operators: Operators) -> None:
    world.apply("team-a")
    process = operators.start()
    eventually(lambda: set(world.namespaces()) == {"team-a"} and world.hosts() == {"a": 0, "b": 1})
    world.apply("team-a", "team-b")
    eventually(lambda: set(world.namespaces()) == {"team-a", "team-b"})
    world.add_node("c")
    eventually(lambda: world.hosts() == {"a": 0, "b": 1, "c": 2})
    world.add_node("d", {})
    time.sleep(0.5)
    assert "d" not in world.hosts(), "it has no agent"
    body = {"metadata": {"annotations": AGENT}}
    world.cluster.patch(name="d", body=body, content_type="application/merge-patch+json")
    eventually(lambda: world.hosts().get("d") == 3)
    gone = world.nodes.get(field_selector=f"spec.pool={POOL}").items[0]
    world.nodes.delete(name=gone.metadata.name)
    eventually(lambda: len(world.hosts()) == 4)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, operators.log(process)
    assert world.holder() is None, "the Lease is given back"
    assert "Traceback" not in operators.log(process)


def test_at_rest_nothing_is_written(world: World, operators: Operators) -> None:
    world.apply("team-a")
    operators.start()
    eventually(lambda: world.hosts() == {"a": 0, "b": 1})

    def versions() -> list[str]:
        found = []
        for resource in (world.pools, world.ranges, world.nodes):
            found += [one.metadata.resourceVersion for one in resource.get().items]
        return found

    def rests() -> bool:
        before = versions()
        time.sleep(1.0)
        return versions() == before

    eventually(rests)
    # A kubelet that writes its Node is no reason to write anything.
    body = {"status": {"images": [{"names": ["some/image:1"], "sizeBytes": 1}]}}
    before = versions()
    world.cluster.status.patch(name="a", body=body, content_type="application/merge-patch+json")
    time.sleep(1.0)
    assert versions() == before


def test_another_takes_over_when_the_leader_is_killed(world: World, operators: Operators) -> None:
    world.apply("team-a")
    first = operators.start()
    eventually(lambda: set(world.namespaces()) == {"team-a"})
    second = operators.start()
    leader = world.holder()
    first.kill()
    first.wait()
    world.apply("team-a", "team-b")
    eventually(lambda: set(world.namespaces()) == {"team-a", "team-b"})
    assert world.holder() not in (None, leader)
    assert second.poll() is None


def test_a_leader_that_slept_writes_nothing_more_and_ends(world: World, operators: Operators) -> None:
    world.apply("team-a")
    first = operators.start()
    eventually(lambda: set(world.namespaces()) == {"team-a"})
    os.kill(first.pid, signal.SIGSTOP)
    second = operators.start()
    world.apply("team-a", "team-b")
    eventually(lambda: set(world.namespaces()) == {"team-a", "team-b"})
    uids = world.namespaces()
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait(30) == 1, operators.log(first)
    assert "the Lease was lost" in operators.log(first)
    assert second.poll() is None
    assert world.namespaces() == uids


def test_it_ends_where_its_account_may_not_read(control_plane: Any, operators: Operators, tmp_path: Path) -> None:
    """kopf gives up then. The process must not stay as one that does nothing."""
    other = tmp_path / "kubeconfig"
    other.write_text(control_plane.kubeconfig().read_text().replace(control_plane.token, "of-nobody"))
    process = operators.start("--kubeconfig", str(other))
    assert process.wait(60) == 2, operators.log(process)
    assert "refused the credentials" in operators.log(process)


def test_without_an_api_server_or_crds_it_says_what_to_do(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "gismo_operator", "--kubeconfig", str(tmp_path / "none")],
        cwd=ROOT / "operator", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert "give --kubeconfig" in run.stderr
    assert "Traceback" not in run.stderr
