"""The rows of the device plugin: the agent's plugins as a process of their own, for 64 resources with 64 shares.

In the kubelet's place a client calls them one call after the other, as the kubelet does.

    python -m bench_kubernetes.plugin FOLDER        the plugins, until killed
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from fake_kubelet import Kubelet, Pod

from bench_kubernetes.group import Group, row
from gismo_core import node_marker
from gismo_core.bench.result import Measurement
from gismo_deviceplugin.admission import Admission
from gismo_deviceplugin.kubelet import shares
from gismo_deviceplugin.kubelet.pod_resources import PodResources
from gismo_deviceplugin.kubelet.registrar import Registrar
from gismo_deviceplugin.kubelet.shares import Tenant
from gismo_deviceplugin.pool.state import StateDirectories

RESOURCES, SHARES = 64, 64
_CALLS = 2000
_SIZE = f"{RESOURCES} resources x {SHARES} shares, every share held"
_STARTED_S = 60


def tenants() -> list[Tenant]:
    """One for each resource."""
    return [
        Tenant("rack1", f"team-{n}", str(uuid.UUID(int=n + 1)), SHARES, f"/memory/{n}", False, f"/state/{n}", "/runtime",
               kubernetes_namespaces=frozenset({"ray"}))
        for n in range(RESOURCES)
    ]  # fmt: skip


def serve(folder: Path) -> None:
    """The plugins, until killed."""

    async def main() -> None:
        state = StateDirectories(folder / "state")
        for one in tenants():
            state.prepare(one.store_uuid, 0)
        admission = Admission(state, PodResources(Kubelet(folder / "kubelet").pod_resources), node_marker.boot_id())
        registrar = Registrar(admission.before_start, folder / "kubelet")
        await registrar.set_tenants(dict.fromkeys(tenants(), True))
        await registrar.run()

    asyncio.run(main())


def measure(samples: int) -> Sequence[Measurement]:
    """samples: of the 99th percentiles, each of 2,000 calls, and of the new registrations."""
    with tempfile.TemporaryDirectory(prefix="gismo-bench-") as folder:
        return asyncio.run(_measure(Path(folder), samples))


async def _measure(folder: Path, samples: int) -> list[Measurement]:
    kubelet = Kubelet(folder / "kubelet")
    kubelet.folder.mkdir()
    await kubelet.start()
    plugins = subprocess.Popen([sys.executable, "-m", "bench_kubernetes.plugin", str(folder)], stdin=subprocess.DEVNULL)
    try:
        await asyncio.wait_for(_everything_offered(kubelet), _STARTED_S)
        # Every share is held, each by another pod: the longest list that the kubelet can have.
        for one in tenants():
            kubelet.pods += [
                Pod("ray", f"{one.namespace}-{n}", one.resource, share) for n, share in enumerate(shares.ids(one))
            ]
        calls = [await _calls(kubelet) for _ in range(samples)]
        again = []
        for _ in range(samples):
            await kubelet.stop()
            await kubelet.start()
            began = time.perf_counter()
            await asyncio.wait_for(_everything_offered(kubelet), _STARTED_S)
            again.append(time.perf_counter() - began)
    finally:
        plugins.kill()
        plugins.wait()
        await kubelet.stop()
    return [
        Measurement("deviceplugin.allocate", [allocate for allocate, _ in calls]),
        Measurement("deviceplugin.prestart", [prestart for _, prestart in calls]),
        Measurement("deviceplugin.reregister", again, details={"worst_s": max(again)}),
    ]


async def _calls(kubelet: Kubelet) -> tuple[float, float]:
    """The 99th percentiles of Allocate and PreStartContainer, ms."""
    every = tenants()
    allocating, starting = [], []
    for n in range(_CALLS):
        one = every[n % RESOURCES]
        endpoint, share = kubelet.endpoints[one.resource], shares.ids(one)[n // RESOURCES % SHARES]
        began = time.perf_counter()
        await endpoint.allocate(share)
        middle = time.perf_counter()
        await endpoint.pre_start(share)
        allocating.append(middle - began)
        starting.append(time.perf_counter() - middle)
    return _p99_ms(allocating), _p99_ms(starting)


def _p99_ms(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98] * 1e3


async def _everything_offered(kubelet: Kubelet) -> None:
    while sum(len(one.devices) for one in kubelet.endpoints.values() if not one.ended) < RESOURCES * SHARES:
        await asyncio.sleep(0.005)


GROUP = Group(
    "deviceplugin",
    (
        row("deviceplugin.allocate", "ms", f"p99 of {_CALLS} calls, {_SIZE}", 5, 1),
        row("deviceplugin.prestart", "ms", f"p99 of {_CALLS} calls, {_SIZE}", 50, 10),
        row("deviceplugin.reregister", "s", f"kubelet.sock made anew to all shares seen, {_SIZE}", 2, 1),
    ),
    measure,
)

if __name__ == "__main__":
    serve(Path(sys.argv[1]))
