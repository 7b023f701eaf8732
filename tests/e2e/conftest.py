"""Fixtures for tests on the cluster of make e2e-up."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from e2e import cluster
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
