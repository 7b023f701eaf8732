"""Is everything in place? What `helm test` runs.

python -m gismo_operator.check --namespace N --agents DAEMONSET
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

from kubernetes import client
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from gismo_kube.connection import REQUEST_ERRORS, CannotStart, api_client, dynamic_client, in_words, starting
from gismo_operator.api.v1alpha1 import GROUP, VERSION
from gismo_operator.kube import AGENT_ANNOTATION
from gismo_operator.lease import DURATION_S, REQUEST_S


def problems(api: Any, namespace: str, agents: str, now: Callable[[], datetime]) -> Iterator[str]:
    """What is not as it should be, each in words that say what to do; nothing where all is well."""
    yield from _api_problems(api)
    yield from _operator_problems(api, namespace, now())
    yield from _agent_problems(api, namespace, agents)


def _api_problems(api: Any) -> Iterator[str]:
    try:
        pools = dynamic_client(api).resources.get(api_version=f"{GROUP}/{VERSION}", kind="GismoPool")
    except ResourceNotFoundError:
        yield f"{GROUP}/{VERSION} is not served: install the chart with crds.install=true, or apply crds/"
        return
    for one in pools.get(_request_timeout=REQUEST_S).to_dict()["items"]:
        seen = {each["type"]: each for each in one.get("status", {}).get("conditions", [])}
        if "Ready" not in seen:
            yield f"GismoPool {one['metadata']['name']} has no conditions: does the operator run?"


def _operator_problems(api: Any, namespace: str, now: datetime) -> Iterator[str]:
    leases: Any = client.CoordinationV1Api(api)
    try:
        lease = leases.read_namespaced_lease("gismo-operator", namespace, _request_timeout=REQUEST_S)
    except client.ApiException as error:
        if error.status != 404:
            raise
        yield f"no operator has led yet: kubectl logs -n {namespace} -l app.kubernetes.io/component=operator"
        return
    renewed = lease.spec.renew_time
    if not lease.spec.holder_identity or renewed is None or (now - renewed).total_seconds() > DURATION_S:
        yield f"no operator leads: kubectl get pods -n {namespace} -l app.kubernetes.io/component=operator"


def _agent_problems(api: Any, namespace: str, agents: str) -> Iterator[str]:
    apps: Any = client.AppsV1Api(api)
    core: Any = client.CoreV1Api(api)
    try:
        status = apps.read_namespaced_daemon_set(agents, namespace, _request_timeout=REQUEST_S).status
    except client.ApiException as error:
        if error.status != 404:
            raise
        yield f"there is no DaemonSet {namespace}/{agents}"
        return
    wanted = status.desired_number_scheduled or 0
    if wanted == 0:
        yield "no node is for agents: see agent.nodeSelector and agent.tolerations of the chart's values"
    if (status.number_ready or 0) < wanted:
        yield f"{status.number_ready or 0} of {wanted} agents are ready: kubectl describe daemonset -n {namespace} {agents}"
    nodes = core.list_node(_request_timeout=REQUEST_S).items
    have = [one for one in nodes if AGENT_ANNOTATION in (one.metadata.annotations or {})]
    if len(have) < wanted:
        yield f"{len(have)} of {wanted} agents have reached the API server: kubectl logs -n {namespace} daemonset/{agents}"


def main(arguments: list[str] | None = None) -> int:
    """0: all is in place; 1: what is not, on stderr; 2: it cannot be said."""
    parser = argparse.ArgumentParser(prog="python -m gismo_operator.check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--namespace", required=True, help="Kubernetes namespace of operator and agents")
    parser.add_argument("--agents", required=True, help="name of the agents' DaemonSet")
    parser.add_argument("--wait", type=float, default=60.0, metavar="S", help="until all is well (%(default)s)")
    parser.add_argument("--kubeconfig", help="file (default: the pod's service account, $KUBECONFIG, ~/.kube/config)")
    given = parser.parse_args(arguments)
    end = time.monotonic() + given.wait
    while True:
        try:
            with starting():
                api = api_client(given.kubeconfig)
            found = list(problems(api, given.namespace, given.agents, lambda: datetime.now(timezone.utc)))
        except (CannotStart, *REQUEST_ERRORS) as error:
            print(f"check: {error if isinstance(error, CannotStart) else in_words(error)}", file=sys.stderr)
            return 2
        if not found:
            print("Gismo is in place: the API is served, an operator leads, all agents are ready")
            return 0
        if time.monotonic() > end:
            print("\n".join(found), file=sys.stderr)
            return 1
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
