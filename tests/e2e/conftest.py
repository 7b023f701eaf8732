"""Fixtures for tests on the cluster of make e2e-up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e import cluster, gismo, road
from e2e.pods import Pods

_END_S = 60


@pytest.fixture
def namespace() -> Iterator[str]:
    """A Kubernetes namespace, gone after the test with all that is in it."""
    name = cluster.kubectl(
        "create", "--filename=-", "--output=jsonpath={.metadata.name}",
        stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "e2e-"}}),
    )  # fmt: skip
    in_time = f"--timeout={_END_S}s"
    cluster.kubectl("wait", "--for=create", f"--namespace={name}", "serviceaccount/default", in_time)  # pods need it
    yield name
    cluster.kubectl("delete", f"namespace/{name}", in_time)


@pytest.fixture
def pods(namespace: str) -> Pods:
    """A way to run pods."""
    return Pods(namespace)


@pytest.fixture(scope="session")
def workers() -> list[cluster.Node]:
    """The nodes that share the memory."""
    return [node for node in cluster.nodes() if node.worker]


@pytest.fixture(scope="session")
def emulated_pool() -> Iterator[str]:
    """The pool of examples/emulated, Ready; afterwards it is deleted, and its memory is free."""
    gismo.install()
    cluster.kubectl("apply", "--filename=-", stdin=gismo.example("emulated/gismopool.yaml"))
    gismo.until_ready("rack1")
    yield "rack1"
    gismo.remove_pool("rack1")
    assert not [path for path in cluster.shared().iterdir() if path.name != "label"]


@pytest.fixture(scope="module")
def ray(emulated_pool: str) -> Iterator[Callable[[int, int], Any]]:
    """Makes and reads objects of so many bytes so many times in the RayCluster of examples/emulated."""
    cluster.kubectl("apply", "--filename=-", stdin=gismo.example("emulated/raycluster.yaml"))
    road.until_ready(road.WITH_GISMO)
    yield lambda size, rounds: road.run(road.WITH_GISMO, size, rounds=rounds)
    road.remove(road.WITH_GISMO)
