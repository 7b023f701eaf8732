"""A RayCluster as in examples/emulated, and an object in it that is made on one node and read on another."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import binaries
import yaml

from e2e import cluster, gismo
from e2e.waiting import READY_S, until

WITH_GISMO = "raycluster"  # as the example calls it
STOCK = "stock"
NETWORK_BYTES = 256 << 10
_RUN_S = 300


def script(name: str = "road_script.py") -> str:
    """What is run in the head's container; its own text says how."""
    return Path(__file__).with_name(name).read_text()


def manifest(name: str, *, shares: bool, memory: str, plasma: int) -> dict[str, Any]:
    """The example under another name, with so much memory for pods and Ray's own store (bytes), with shares or without."""
    found: dict[str, Any] = yaml.safe_load(gismo.example("emulated/raycluster.yaml"))
    found["metadata"]["name"] = name
    for group in (found["spec"]["headGroupSpec"], *found["spec"]["workerGroupSpecs"]):
        group["rayStartParams"]["object-store-memory"] = str(plasma)
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        limits["memory"] = memory
        if not shares:
            for resource in [one for one in limits if one.startswith("gismo.io/")]:
                del limits[resource]
        for spread in group["template"]["spec"].get("topologySpreadConstraints", []):
            spread["labelSelector"]["matchLabels"]["ray.io/cluster"] = name
    return found


def pods(name: str) -> list[dict[str, Any]]:
    """Of a RayCluster."""
    return cluster.items("pods", f"--selector=ray.io/cluster={name}")


def until_ready(name: str, *, pods_wanted: int = 3, within_s: float = READY_S) -> None:
    """Head and workers, each Ready and none going. TimeoutError with what the cluster says when it does not become so."""

    def all_up() -> bool:
        found = pods(name)
        return len([one for one in found if cluster.is_up(one)]) == len(found) == pods_wanted

    until(all_up, within_s, gismo.describe)


def remove(name: str) -> None:
    """The RayCluster and its pods are gone afterwards."""
    cluster.kubectl("delete", f"raycluster/{name}", "--ignore-not-found", "--wait")
    until(lambda: not pods(name), why=gismo.describe)


def head(name: str) -> str:
    """The head's pod, as kubectl takes it."""
    selector = f"--selector=ray.io/cluster={name},ray.io/node-type=head"
    return cluster.kubectl("get", "pods", selector, "--output=name").split()[0]


def run(name: str, size: int, *, rounds: int, script_name: str = "road_script.py") -> Any:
    """So many rounds with an object of so many bytes, after one that is not told of (0: only that one)."""
    command = [str(binaries.ensure("kubectl")), f"--kubeconfig={cluster.kubeconfig()}", "exec", head(name), "--"]
    command += ["python3", "-c", script(script_name), str(size), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_RUN_S)
    assert done.returncode == 0, done.stderr[-3000:] + gismo.describe()
    return json.loads(done.stdout.splitlines()[-1])


def wrong(said: dict[str, Any]) -> str:
    """What is not as it should be in a round with Gismo: the same store and offset, read-only, nothing over the network."""
    if len(set(said["nodes"])) != 2:
        return "made and read on one node"
    if said["place"] != said["made"] or not said["place"][0].startswith("/dev/gismo/"):
        return "not read where it was made"
    if said["writable"]:
        return "writable"
    if said["received"] - said["idle"] >= NETWORK_BYTES:
        return "came over the network"
    return ""
