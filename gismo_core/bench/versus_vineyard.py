"""``store.vs.vineyard.*``: vineyard (v6d) from PyPI, its daemon started here.

Both ways of writing it are measured, NumPy arrays and bytes, and the faster one is the baseline.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gismo_core.bench.versus import Contender, group
from gismo_core.bench.worker import die_with_parent

if TYPE_CHECKING:
    from gismo_core.bench.versus import Array


class Vineyard:
    """client.put, client.get, client.delete."""

    deletes_by = "client.delete"
    settle_s = 0.0

    def __init__(self, client: Any, *, as_bytes: bool) -> None:
        self.client = client
        self.as_bytes = as_bytes
        self.name = "vineyard, bytes" if as_bytes else "vineyard, NumPy"
        self.ids: list[Any] = []

    def put(self, array: Array, count: int) -> float:
        """client.put(value)"""
        client, ids = self.client, self.ids
        value = array.tobytes() if self.as_bytes else array
        begin = time.perf_counter()
        for _ in range(count):
            ids.append(client.put(value))
        return time.perf_counter() - begin

    def get(self) -> tuple[float, list[Any]]:
        """client.get(id)"""
        client = self.client
        begin = time.perf_counter()
        values = [client.get(object_id) for object_id in self.ids]
        return time.perf_counter() - begin, values

    def delete(self) -> float:
        """client.delete(id)"""
        client, ids = self.client, self.ids
        begin = time.perf_counter()
        while ids:
            client.delete(ids.pop())
        return time.perf_counter() - begin


def daemon_path(vineyard: Any) -> Path:
    """The vineyardd of the wheel vineyard-bdist, else of $PATH."""
    bundled = Path(vineyard.__file__).parent / "bdist" / "vineyardd"
    if bundled.exists():
        return bundled
    found = shutil.which("vineyardd")
    if found is None:
        raise RuntimeError("vineyardd is not there: pip install vineyard-bdist")
    return Path(found)


@contextmanager
def start(nbytes: int) -> Iterator[list[Contender]]:
    """A vineyardd without etcd and network, its memory reserved."""
    import vineyard as vineyard_module

    vineyard: Any = vineyard_module  # half typed
    directory = Path(tempfile.mkdtemp(prefix="gb-", dir="/tmp"))
    socket, log = directory / "v.sock", directory / "v.log"
    command = [
        str(daemon_path(vineyard)),
        "--meta=local",
        "--rpc=false",
        f"--socket={socket}",
        f"--size={nbytes}",
        "--reserve_memory=true",
    ]
    try:
        with log.open("wb") as output:
            daemon = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,  # no other thread runs here
                env={**os.environ, "GLOG_minloglevel": "2"},
            )
        try:
            deadline = time.monotonic() + 60
            while not socket.exists():
                if daemon.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"vineyardd did not start: {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.05)
            client = vineyard.connect(str(socket))
            try:
                yield [Vineyard(client, as_bytes=False), Vineyard(client, as_bytes=True)]
            finally:
                client.close()
        finally:
            daemon.terminate()
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


GROUPS = (
    group(
        "vineyard",
        {"put": "client.put", "get": "client.get", "delete": "client.delete"},
        ("vineyard", "vineyard-bdist"),
        start,
    ),
)
