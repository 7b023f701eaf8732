"""A real Ray cluster of two nodes on one pool. Each node is a Gismo host of its own (its own state directory).

The pool holds the object that makes the keeper overwrite what it frees, so that a wrong free cannot hide.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import gismo_core
from gismo_core.ray import compat, record
from ray_scenarios import talk

MiB = 1024**2
POISON_NAME = "gismo-ray-poison"
POOL_BYTES = 512 * MiB
PLASMA_BYTES = 150 * MiB


@dataclass(frozen=True, slots=True)
class Kind:
    """What a cluster is to be like."""

    name: str
    poison: bool = True
    quick_death: bool = False  # GCS declares a silent node dead within seconds
    oldest: bool = False  # the oldest Ray that is claimed


KINDS = {
    kind.name: kind
    for kind in (
        Kind("plain"),
        # Bytes that a pin of another host holds are overwritten by the poison, though never given to anybody.
        Kind("quick-death", poison=False, quick_death=True),
        Kind("oldest", oldest=True),
    )
}


def environment(kind: Kind, pool: str, state_dir: Path) -> dict[str, str]:
    """For every process of a cluster."""
    paths = [talk.TESTS, talk.TESTS.parent]
    if kind.oldest:
        paths.insert(0, oldest_ray())
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("GISMO_", "RAY_"))}
    return keep | {
        "GISMO_STORE": f"file:{pool}",
        "GISMO_STATE_DIR": str(state_dir),
        "PYTHONPATH": ":".join(map(str, paths)),
        "RAY_DEDUP_LOGS": "0",
        "RAY_memory_monitor_refresh_ms": "0",  # what else runs on the machine may not kill our workers
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


def oldest_ray() -> Path:
    """A folder with the oldest Ray that is claimed, for the front of PYTHONPATH; installed when first asked for.

    What Ray depends on is that of the newest: the oldest takes it as well.
    """
    version = ".".join(map(str, compat.OLDEST)) + ".0"
    folder = talk.TESTS.parent / "build" / f"ray-{version}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(part), f"ray=={version}"]
        subprocess.run(pip, check=True, timeout=600)
        part.rename(folder)
    return folder


class TwoNodes:
    """The cluster; this process must run with environment(...) and becomes a driver on its first node."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.pool = str(folder / "pool")
        gismo_core.format(self.pool, size=POOL_BYTES, populate=False, max_hosts=8)
        self.store = gismo_core.open(self.pool)
        if kind.poison:
            self.store.put(b"poison", name=POISON_NAME)
        import ray
        from ray.cluster_utils import Cluster

        self._ray = ray
        self._cluster = Cluster()
        config = {"health_check_period_ms": 1000, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}
        self._cluster.add_node(
            num_cpus=2,
            object_store_memory=PLASMA_BYTES,
            include_dashboard=False,
            resources={"node0": 100},
            _system_config={**(config if kind.quick_death else {}), "prestart_worker_first_driver": False},
        )
        self._add_second()
        self.address = self._cluster.address
        ray.init(address=self.address, namespace="scenarios", log_to_driver=False, configure_logging=False)

    def _add_second(self) -> None:
        self.state_dirs = [self.folder / "state-0", self.folder / "state-1"]
        self.second = self._cluster.add_node(
            num_cpus=2,
            object_store_memory=PLASMA_BYTES,
            resources={"node1": 100},
            env_vars={"GISMO_STATE_DIR": str(self.state_dirs[1])},
        )

    def records(self) -> int:
        """How many values are in the store, of all clusters."""
        return len(self.store.sealed(tag=record.TAG, mask=record.TAG_MASK))

    def raylet(self, node: int) -> int:
        """The process of a node's raylet."""
        [raylet] = (self.second if node else self._cluster.head_node).all_processes["raylet"]
        return int(raylet.process.pid)

    def number(self, node_id: str) -> int:
        """0 or 1, for the first and the second node."""
        return 0 if node_id == self._cluster.head_node.node_id else 1

    def kill_second(self) -> None:
        """SIGKILL to all processes of the second node."""
        raylet = self.raylet(1)
        try:
            os.kill(raylet, signal.SIGCONT)
        except ProcessLookupError:
            pass  # it saw that it was declared dead
        self._cluster.remove_node(self.second, allow_graceful=False)

    def renew_second(self) -> None:
        """Another node in the place of the killed one."""
        self._add_second()

    def end(self) -> None:
        """Stop everything that was started."""
        self._ray.shutdown()
        self._cluster.shutdown()
        self.store.close()


def make_folder() -> Path:
    """A folder on tmpfs for a pool, its state directories and the scenarios' files."""
    return Path(tempfile.mkdtemp(prefix="gismo-ray-", dir="/dev/shm"))


def remove_folder(folder: Path) -> None:
    """And away with it."""
    shutil.rmtree(folder, ignore_errors=True)
