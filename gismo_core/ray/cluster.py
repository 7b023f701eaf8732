"""A command's connection to a Ray cluster that runs: to look, with the integration off in this process."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from gismo_core.errors import GismoError

_CONNECT_S = 5.0


class NoCluster(GismoError, LookupError):
    """Ray is not installed, or no cluster answers; the message says what to do."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected; disconnects in the end.

    address: of GCS ("IP:port") or "auto"; None for $RAY_ADDRESS, else "auto". Errors: NoCluster.
    """
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    # Not one of ours while it looks: it would make a keeper, and count as a holder of what it looks at.
    os.environ["GISMO_DISABLE"] = "1"
    try:
        import ray
    except ImportError as error:
        raise NoCluster(f"Ray is not installed here ({error}): pip install 'gismo-cxl[ray]'") from error
    if where.startswith("ray://"):
        raise NoCluster(f"{where} is the address of a Ray Client: give that of GCS, HOST:6379 where nobody changed it")
    if not _somebody_listens(ray, where):
        raise NoCluster(f"nobody listens at {where}: give --address or set RAY_ADDRESS to GCS's HOST:PORT")
    try:
        ray.init(address=where, namespace="gismo", log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise NoCluster(
            f"no Ray cluster at {where!r} ({_first_line(error)}): give --address or set RAY_ADDRESS to GCS's HOST:PORT; "
            "with RAY_AUTH_MODE=token and the cluster's token where it asks for one"
        ) from error
    # What dies in the cluster meanwhile Ray prints on stdout, log_to_driver or not, in the middle of our JSON.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield ray
    finally:
        ray.shutdown()


def id_of(ray: Any) -> bytes:
    """The cluster's ID (28 bytes), as it stands in the headers of records."""
    raw: bytes = ray._private.worker.global_worker.node.cluster_id.binary()
    return raw


def _somebody_listens(ray: Any, address: str) -> bool:
    """Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return True  # "auto", "local": found or not in a moment
    # Ray takes the loopback for the address of this node, which may be all that GCS listens on.
    hosts = [host.strip("[]"), *([ray.util.get_node_ip_address()] if host in ("127.0.0.1", "localhost") else [])]
    for one in hosts:
        with contextlib.suppress(OSError):
            socket.create_connection((one, int(port)), timeout=_CONNECT_S).close()
            return True
    return False


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
