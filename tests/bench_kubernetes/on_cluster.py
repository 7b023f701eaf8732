"""The rows that need the cluster of make e2e-up: how soon a pool is Ready and mended, and Ray with Gismo against stock Ray.

It is brought up where it is not, and then taken away again; what a failed run left of pools and RayClusters goes first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import binaries
import yaml

import gismo_core
from bench_kubernetes.group import Group, NotToBeMeasured, row
from e2e import cluster, gismo, gismo_image, road
from e2e.__main__ import down, up
from e2e.waiting import until
from gismo_core.bench.result import Measurement

POOL, NAMESPACE = "rack1", "team-a"
_MIB = 1 << 20
_OBJECT_BYTES = 500_000_000
_PLASMA_BYTES = 1_500_000_000  # holds a new object beside one that is not freed yet
_POD_MEMORY = "4Gi"
_LOOK_S = 0.01
_INSTALLS = 3  # of the whole road, a minute or so each


@contextlib.contextmanager
def on_cluster() -> Iterator[None]:
    """A cluster with KubeRay and nothing of Gismo's but the CRDs, maybe."""
    if os.geteuid() != 0:
        raise NotToBeMeasured("needs root, to start a container engine")
    try:
        there = cluster.kubeconfig().exists() and cluster.exists()
        with contextlib.redirect_stdout(sys.stderr):  # what is measured is all that goes to stdout
            up("")
    except binaries.NotToBeHad as error:
        raise NotToBeMeasured(str(error)) from error
    try:
        clear()
        yield
        clear()
    finally:
        if not there:
            down()


def clear() -> None:
    """No RayCluster, no pool and no chart afterwards."""
    for name in (road.WITH_GISMO, road.STOCK):
        road.remove(name)
    if "gismopools.gismo.io" in cluster.kubectl("get", "customresourcedefinitions", "--output=name"):
        if cluster.items("gismopools"):
            gismo.install()  # somebody has to give the ranges back
        gismo.remove_pool(POOL)
        if (cluster.shared() / "label").exists():  # the next pool may have another size
            gismo.forget_pool(POOL, cluster.shared())
    with contextlib.suppress(gismo.HelmFailed):
        gismo.uninstall()


def _until(what: Callable[[], object]) -> None:
    until(what, why=gismo.describe, look_s=_LOOK_S)


class Api:
    """The API server by a connection that stays open: a kubectl takes longer to start than what is measured here."""

    def __init__(self) -> None:
        from kubernetes import client, config

        told = config.new_client_from_config(str(cluster.kubeconfig()))
        self._custom, self._core = client.CustomObjectsApi(told), client.CoreV1Api(told)

    def apply(self, manifest: dict[str, Any]) -> None:
        """Make an object of gismo.io/v1alpha1."""
        self._custom.create_cluster_custom_object("gismo.io", "v1alpha1", "gismopools", manifest)

    def get(self, plural: str, name: str) -> dict[str, Any]:
        """One object; {} where there is none."""
        return next((one for one in self.all(plural) if one["metadata"]["name"] == name), {})

    def all(self, plural: str) -> list[dict[str, Any]]:
        """Every object of a kind."""
        found: Any = self._custom.list_cluster_custom_object("gismo.io", "v1alpha1", plural)
        return list(found["items"])

    def delete(self, plural: str, name: str) -> None:
        """By hand, as it were."""
        self._custom.delete_cluster_custom_object("gismo.io", "v1alpha1", plural, name)

    def offered(self, resource: str) -> bool:
        """Do two nodes count shares of it as allocatable?"""
        nodes: Any = self._core.list_node().items
        return sum(int((one.status.allocatable or {}).get(resource, 0)) > 0 for one in nodes) >= 2


def pool(size: str, capacity: str) -> dict[str, Any]:
    """The manifest of a pool with one Gismo namespace."""
    manifest: dict[str, Any] = yaml.safe_load(gismo.example("emulated/gismopool.yaml"))
    manifest["spec"]["source"]["emulated"]["capacity"] = capacity
    manifest["spec"]["namespaces"][0]["size"] = size
    return manifest


def ready(thing: dict[str, Any]) -> bool:
    """Is it Ready, and said of what it is now?"""
    conditions = {one["type"]: one["status"] for one in thing.get("status", {}).get("conditions", [])}
    seen = thing.get("status", {}).get("observedGeneration")
    return conditions.get("Ready") == "True" and seen in (None, thing["metadata"]["generation"])


def measure_operator(samples: int) -> Sequence[Measurement]:
    """A pool applied, its GismoNode deleted by hand, the pool removed; each time anew."""
    gismo.install()
    api = Api()
    readies, populatings, allocatables, repairs = [], [], [], []
    for number in range(samples + 1):
        began = time.monotonic()
        api.apply(pool("1Gi", f"{1024 + 4}Mi"))
        _until(lambda: ready(api.get("gismopools", POOL)))
        took = time.monotonic() - began
        _until(lambda: api.offered(f"gismo.io/{POOL}.{NAMESPACE}"))
        allocatable = time.monotonic() - began
        repaired = _repair(api)
        gismo.remove_pool(POOL)
        if number:  # the first finds nothing loaded
            populatings.append(_populate())
            readies.append(max(0.0, took - populatings[-1]))
            allocatables.append(allocatable)
            repairs.append(repaired)
    beside = {"populating_s": statistics.median(populatings), "allocatable_s": statistics.median(allocatables)}
    return [
        Measurement("operator.ready", readies, details=beside),
        Measurement("operator.repair", repairs, details={"worst_s": max(repairs)}),
    ]


def _repair(api: Api) -> float:
    """Seconds until a GismoNode that was deleted is there again and the agent has said that it is Ready, and the pool is."""
    lost = api.all("gismonodes")[0]["metadata"]
    began = time.monotonic()
    api.delete("gismonodes", lost["name"])

    def back() -> bool:
        found = api.get("gismonodes", lost["name"])
        return bool(found) and found["metadata"]["uid"] != lost["uid"] and ready(found)

    _until(back)
    _until(lambda: ready(api.get("gismopools", POOL)))
    return time.monotonic() - began


def _populate() -> float:
    """Seconds that a store of the same size takes to be formatted on the same memory, which is its pages, nearly all of it."""
    with tempfile.TemporaryDirectory(dir=cluster.shared().parent, prefix="gismo-bench-") as folder:
        began = time.monotonic()
        gismo_core.format(Path(folder) / "store", size=1024 * _MIB)
        return time.monotonic() - began


@contextlib.contextmanager
def conversation(name: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """A driver in a RayCluster: each call is one object that is made on one node and read on another."""
    head = road.head(name)
    command = [str(binaries.ensure("kubectl")), f"--kubeconfig={cluster.kubeconfig()}", "exec", "--stdin", head, "--"]
    command += ["python3", "-c", road.script(), str(_OBJECT_BYTES), "asked"]
    with tempfile.TemporaryFile("w+") as errors:
        talk = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert talk.stdin is not None
        assert talk.stdout is not None

        def ask() -> dict[str, Any]:
            assert talk.stdin is not None
            assert talk.stdout is not None
            talk.stdin.write("\n")
            talk.stdin.flush()
            line = talk.stdout.readline()
            if not line:
                errors.seek(0)
                raise RuntimeError(f"the driver in {name} ended: {errors.read()[-2000:]}")
            answer: dict[str, Any] = json.loads(line)
            return answer

        try:
            yield ask
            talk.stdin.close()
            talk.wait(timeout=30)
        finally:
            if talk.poll() is None:
                talk.kill()
                talk.wait()


def measure_first_get(samples: int) -> Sequence[Measurement]:
    """From helm install on a cluster that has never seen Gismo, but for the images. At most 3 times."""
    cluster.load(gismo_image.ensure())
    took, parts = [], []
    for _ in range(min(samples, _INSTALLS)):
        clear()
        cluster.kubectl("delete", "customresourcedefinitions", "--selector=app.kubernetes.io/part-of=gismo", "--wait")
        began = time.monotonic()
        gismo.install_chart()
        installed = time.monotonic() - began
        cluster.kubectl("apply", "--filename=-", stdin=gismo.example("emulated/gismopool.yaml"))
        cluster.kubectl("apply", "--filename=-", stdin=gismo.example("emulated/raycluster.yaml"))
        road.until_ready(road.WITH_GISMO)
        running = time.monotonic() - began
        (said,) = road.run(road.WITH_GISMO, 1 << 28, rounds=0)["rounds"]
        took.append(time.monotonic() - began)
        _check(said)
        parts.append((installed, running))
    clear()
    beside = {
        "chart_installed_s": statistics.median(installed for installed, _ in parts),
        "raycluster_ready_s": statistics.median(running for _, running in parts),
    }
    return [Measurement("e2e.first_get", took, details=beside)]


def measure_remote_get(samples: int) -> Sequence[Measurement]:
    """Two RayClusters of the same shape at once, one of them without shares; asked by turns."""
    gismo.install()
    api = Api()
    api.apply(pool("3Gi", f"{3 * 1024 + 4}Mi"))
    _until(lambda: ready(api.get("gismopools", POOL)))
    names = (road.WITH_GISMO, road.STOCK)
    for name in names:
        manifest = road.manifest(name, shares=name == road.WITH_GISMO, memory=_POD_MEMORY, plasma=_PLASMA_BYTES)
        cluster.kubectl("apply", "--filename=-", stdin=json.dumps(manifest))
    for name in names:
        road.until_ready(name)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        asked = {name: stack.enter_context(conversation(name)) for name in names}
        for number in range(samples + 2):
            for name in names:
                said = asked[name]()
                if number >= 2:  # stores, workers and connections are warm then
                    found[name].append(said)
    for said in found[road.WITH_GISMO]:
        _check(said)
    received = [one["received"] - one["idle"] for one in found[road.STOCK]]
    if min(received) < _OBJECT_BYTES:
        raise RuntimeError(f"stock Ray's object did not come over the network: {received}")
    clear()
    own = [one["ms"] for one in found[road.WITH_GISMO]]
    stock = [one["ms"] for one in found[road.STOCK]]
    beside = {
        "received_bytes": statistics.median(one["received"] - one["idle"] for one in found[road.WITH_GISMO]),
        "stock_received_bytes": statistics.median(received),
        "slowest_ms": max(own),
        "stock_fastest_ms": min(stock),
    }
    return [Measurement("e2e.remote_get", own, {"stock Ray": stock}, beside)]


def _check(said: dict[str, Any]) -> None:
    wrong = road.wrong(said)
    if wrong:
        raise RuntimeError(f"{wrong}: {said}")


GROUPS = (
    Group(
        "operator",
        (
            row(
                "operator.ready",
                "s",
                "GismoPool of 1 GiB applied to Ready on both nodes, less populating the memory",
                5,
                2,
            ),
            row("operator.repair", "s", "a GismoNode deleted by hand, until it and the pool are Ready again", 2, 0.5),
        ),
        measure_operator,
        on_cluster=True,
    ),
    Group(
        "e2e.first_get",
        (row("e2e.first_get", "s", "helm install to the first get of another node's object (images present)", 75, 45),),
        measure_first_get,
        on_cluster=True,
    ),
    Group(
        "e2e.remote_get",
        (
            dataclasses.replace(
                row("e2e.remote_get", "ms", "0.5 GB made by a worker and read by one of another node", 100, 300),
                judged="ratio",
            ),
        ),
        measure_remote_get,
        on_cluster=True,
    ),
)
