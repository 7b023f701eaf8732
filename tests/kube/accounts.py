"""The chart's service accounts on an API server: their roles, and tokens as pods get them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chart
from apiserver import ControlPlane

OPERATOR, AGENT = (f"{chart.RELEASE}-{name}" for name in ("operator", "agent"))
_KINDS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
_TOKEN_S = 3600


def install(client: Any) -> None:
    """Accounts, roles, and the policy about agents. client: kubernetes.dynamic.DynamicClient of an administrator."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": chart.NAMESPACE}}
    policy = [one for one in chart.policies() if one["metadata"]["name"] == "gismo-agents"]
    for body in (namespace, *chart.of_kind(*_KINDS), *policy):
        kind = client.resources.get(api_version=body["apiVersion"], kind=body["kind"])
        where = {"namespace": body["metadata"]["namespace"]} if "namespace" in body["metadata"] else {}
        kind.create(body=body, **where)


def kubeconfig(control_plane: ControlPlane, client: Any, account: str, node: str | None = None) -> Path:
    """A file with a token of that account; of a pod on that node, where one is named."""
    from kubernetes import client as kubernetes

    core: Any = kubernetes.CoreV1Api(client.client)
    spec: dict[str, Any] = {"audiences": [], "expirationSeconds": _TOKEN_S}
    if node is not None:
        pods = client.resources.get(api_version="v1", kind="Pod")
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{account}-{node}", "namespace": chart.NAMESPACE},
            "spec": {
                "nodeName": node,
                "serviceAccountName": account,
                "automountServiceAccountToken": False,
                "containers": [{"name": "agent", "image": "gismo"}],
            },
        }
        there = [one for one in pods.get(namespace=chart.NAMESPACE).items if one.metadata.name == f"{account}-{node}"]
        pod = there[0] if there else pods.create(body=body, namespace=chart.NAMESPACE)
        spec["boundObjectRef"] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod.metadata.name,
            "uid": pod.metadata.uid,
        }
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    token = core.create_namespaced_service_account_token(account, chart.NAMESPACE, asked).status.token
    path = control_plane.folder / f"{account}-{node or 'any'}.kubeconfig"
    path.write_text(control_plane.kubeconfig().read_text().replace(control_plane.token, token))
    return path


def granted(account: str) -> Iterator[tuple[str, str, str]]:
    """What the chart lets it do: API group, resource or resource/subresource, verb."""
    roles = {
        binding["roleRef"]["name"]
        for binding in chart.of_kind("ClusterRoleBinding", "RoleBinding")
        if any(one["name"] == account for one in binding["subjects"])
    }
    for role in chart.of_kind("ClusterRole", "Role"):
        if role["metadata"]["name"] in roles:
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    yield from ((group, one, verb) for one in rule["resources"] for verb in rule["verbs"])
