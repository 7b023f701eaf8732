"""A real kube-apiserver for the tests below, with our CRDs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accounts
import apiserver
import pytest
import two_nodes
import yaml

ROOT = Path(__file__).resolve().parents[2]
_ESTABLISHED_S = 30.0


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with apiserver.running(tmp_path_factory.mktemp("kube")) as one:
        yield one


@pytest.fixture(scope="session")
def client(control_plane: Any) -> Any:
    """kubernetes.dynamic.DynamicClient of an administrator."""
    from kubernetes import config

    from gismo_kube.connection import dynamic_client

    api = config.new_client_from_config(str(control_plane.kubeconfig()))
    made = dynamic_client(api)
    crds = made.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        crds.create(body=yaml.safe_load(path.read_text()))
    end = time.monotonic() + _ESTABLISHED_S
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        name = yaml.safe_load(path.read_text())["metadata"]["name"]
        while True:
            conditions = {one.type: one for one in crds.get(name=name).status.conditions or []}
            if "Established" in conditions and conditions["Established"].status == "True":
                break
            assert time.monotonic() < end, conditions
            time.sleep(0.05)
        assert conditions.get("NonStructuralSchema") is None, conditions["NonStructuralSchema"].message
    return made


@pytest.fixture(scope="session")
def installed(client: Any) -> Any:
    """client, where the chart's accounts, their roles and the policy about agents are."""
    accounts.install(client)
    return client


@pytest.fixture
def world(installed: Any, control_plane: Any) -> Iterator[two_nodes.Cluster]:
    """The nodes, not running yet; `two_nodes.played` starts them."""
    with two_nodes.two_nodes(installed, control_plane) as made:
        yield made
