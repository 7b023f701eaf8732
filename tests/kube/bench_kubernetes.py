"""The speed of the Kubernetes parts, row by row. Behind `make bench-kubernetes`.

python tests/kube/bench_kubernetes.py [--json] [--calls N]

The rows of the device plugin: the agent's plugins as a process of their own, for 64 resources with 64 shares, and in the
kubelet's place a client that calls them one call after the other, as the kubelet does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from fake_kubelet import Kubelet, Pod

from gismo_core import node_marker
from gismo_deviceplugin.admission import Admission
from gismo_deviceplugin.kubelet import shares
from gismo_deviceplugin.kubelet.pod_resources import PodResources
from gismo_deviceplugin.kubelet.registrar import Registrar
from gismo_deviceplugin.kubelet.shares import Tenant
from gismo_deviceplugin.pool.state import StateDirectories

RESOURCES, SHARES = 64, 64
_STARTS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One measured row. All are better when small."""

    name: str
    value: float
    unit: str
    reach: float  # at least
    aim: float
    what: str


def tenants() -> list[Tenant]:
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


def p99(seconds: list[float]) -> float:
    """In milliseconds."""
    return statistics.quantiles(seconds, n=100)[98] * 1e3


async def everything_offered(kubelet: Kubelet) -> None:
    while sum(len(one.devices) for one in kubelet.endpoints.values() if not one.ended) < RESOURCES * SHARES:
        await asyncio.sleep(0.005)


async def measure(folder: Path, calls: int) -> list[Row]:
    kubelet = Kubelet(folder / "kubelet")
    kubelet.folder.mkdir()
    await kubelet.start()
    command = [sys.executable, __file__, "--serve", str(folder)]
    plugins = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        await everything_offered(kubelet)
        # Every share is held, each by another pod: the longest list that the kubelet can have.
        for one in tenants():
            kubelet.pods += [
                Pod("ray", f"{one.namespace}-{n}", one.resource, share) for n, share in enumerate(shares.ids(one))
            ]
        all_ = tenants()
        allocating, starting = [], []
        for n in range(calls):
            one = all_[n % RESOURCES]
            endpoint, share = kubelet.endpoints[one.resource], shares.ids(one)[n // RESOURCES % SHARES]
            began = time.perf_counter()
            await endpoint.allocate(share)
            middle = time.perf_counter()
            await endpoint.pre_start(share)
            allocating.append(middle - began)
            starting.append(time.perf_counter() - middle)
        again = []
        for _ in range(_STARTS):
            await kubelet.stop()
            await kubelet.start()
            began = time.perf_counter()
            await everything_offered(kubelet)
            again.append(time.perf_counter() - began)
    finally:
        plugins.kill()
        plugins.wait()
        await kubelet.stop()
    size = f"{RESOURCES} resources x {SHARES} shares"
    return [
        Row("deviceplugin.allocate", p99(allocating), "ms", 5, 1, f"p99 of {calls} calls, {size}"),
        Row("deviceplugin.prestart", p99(starting), "ms", 50, 10, f"p99 of {calls} calls, {size}, every share held"),
        Row(
            "deviceplugin.reregister",
            max(again),
            "s",
            2,
            1,
            f"worst of {_STARTS}: kubelet.sock made anew to all shares seen",
        ),
    ]


def main(arguments: list[str]) -> int:
    """Measure and print; 1 where a row does not reach what it has to."""
    parser = argparse.ArgumentParser(description="Speed of the Kubernetes parts")
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    parser.add_argument("--calls", type=int, default=2000, help="of Allocate and PreStartContainer each (%(default)s)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve)
        return 0
    if options.calls < 100:
        parser.error("--calls must be 100 or more: a 99th percentile is asked for")
    with tempfile.TemporaryDirectory(prefix="gismo-bench-") as folder:
        rows = asyncio.run(measure(Path(folder), options.calls))
    missed = [row for row in rows if row.value > row.reach]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print(f"{'row':<26} {'value':>10}  {'reach':>6} {'aim':>5}  what")
        for row in rows:
            verdict = "MISSED" if row in missed else ""
            print(
                f"{row.name:<26} {row.value:>7.2f} {row.unit:<2}  {row.reach:>6g} {row.aim:>5g}  {row.what} {verdict}"
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
