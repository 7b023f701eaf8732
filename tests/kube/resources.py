"""The kinds that the tests look at and change, and a pool of them."""

from __future__ import annotations

from typing import Any

OWN = "gismo.io/v1alpha1"


class Resources:
    """Of one API server. client: kubernetes.dynamic.DynamicClient."""

    def __init__(self, client: Any) -> None:
        self.pools = client.resources.get(api_version=OWN, kind="GismoPool")
        self.ranges = client.resources.get(api_version=OWN, kind="GismoNamespace")
        self.nodes = client.resources.get(api_version=OWN, kind="GismoNode")
        self.cluster = client.resources.get(api_version="v1", kind="Node")
        self.leases = client.resources.get(api_version="coordination.k8s.io/v1", kind="Lease")
        self.events = client.resources.get(api_version="events.k8s.io/v1", kind="Event")

    def apply_pool(self, name: str, emulated: dict[str, str], *namespaces: dict[str, Any]) -> None:
        """As `kubectl apply` does; its nodes are those with the label pool=name."""
        self.apply_source(name, {"source": {"emulated": emulated}}, name, *namespaces)

    def apply_source(self, name: str, spec: dict[str, Any], label: str, *namespaces: dict[str, Any]) -> None:
        """spec: source, and coherence where that has to be said. Its nodes are those with the label pool=label."""
        body = {
            "apiVersion": OWN,
            "kind": "GismoPool",
            "metadata": {"name": name},
            "spec": {**spec, "nodeSelector": {"pool": label}, "namespaces": list(namespaces)},
        }
        self.pools.server_side_apply(body=body, name=name, field_manager="kubectl")
