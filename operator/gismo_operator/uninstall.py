"""Before the chart goes: the operator ends, and the finalizer of all GismoNamespaces, which only it takes off, goes.

python -m gismo_operator.uninstall --namespace N --deployment D

Otherwise `kubectl delete` of one would wait for ever for an operator that is not there. Pools, ranges, the pool label and
all data stay; an operator that is installed later takes them over, and puts the finalizer on again. Safe to repeat.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from kubernetes import client
from kubernetes.dynamic.exceptions import NotFoundError, ResourceNotFoundError

from gismo_kube.connection import REQUEST_ERRORS, CannotStart, api_client, dynamic_client, in_words, starting
from gismo_operator.api.v1alpha1 import GROUP, VERSION
from gismo_operator.lease import REQUEST_S
from gismo_operator.names import FINALIZER, others_finalizers

_END_S = 120.0


class StillRuns(RuntimeError):
    """The operator does not end."""


def stop_operator(api: Any, namespace: str, deployment: str, wait_s: float = _END_S) -> None:
    """No replicas any more; StillRuns. None there: nothing to do."""
    apps: Any = client.AppsV1Api(api)
    end = time.monotonic() + wait_s
    try:
        apps.patch_namespaced_deployment_scale(
            deployment, namespace, {"spec": {"replicas": 0}}, _request_timeout=REQUEST_S
        )
        while apps.read_namespaced_deployment_scale(deployment, namespace, _request_timeout=REQUEST_S).status.replicas:
            if time.monotonic() > end:
                raise StillRuns(f"Deployment {namespace}/{deployment} still has replicas after {wait_s:.0f} s")
            time.sleep(0.5)
    except client.ApiException as error:
        if error.status != 404:
            raise


def remove_finalizers(api: Any) -> int:
    """Of all GismoNamespaces; how many had it. Who deleted one meanwhile sees it go."""
    try:
        ranges = dynamic_client(api).resources.get(api_version=f"{GROUP}/{VERSION}", kind="GismoNamespace")
    except ResourceNotFoundError:
        return 0  # the CRDs are gone, and all objects with them
    count = 0
    for one in ranges.get(_request_timeout=REQUEST_S).to_dict()["items"]:
        there = one["metadata"].get("finalizers") or []
        if FINALIZER not in there:
            continue
        metadata = {"resourceVersion": one["metadata"]["resourceVersion"], "finalizers": others_finalizers(there)}
        try:
            ranges.patch(
                name=one["metadata"]["name"],
                body={"metadata": metadata},
                content_type="application/merge-patch+json",
                _request_timeout=REQUEST_S,
            )
        except NotFoundError:
            continue
        count += 1
    return count


def main(arguments: list[str] | None = None) -> int:
    """0; 1: to be tried again; 2: it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m gismo_operator.uninstall", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--namespace", required=True, help="Kubernetes namespace of the operator")
    parser.add_argument("--deployment", required=True, help="name of its Deployment")
    parser.add_argument("--kubeconfig", help="file (default: the pod's service account, $KUBECONFIG, ~/.kube/config)")
    given = parser.parse_args(arguments)
    try:
        with starting():
            api = api_client(given.kubeconfig)
        stop_operator(api, given.namespace, given.deployment)
        count = remove_finalizers(api)
    except CannotStart as error:
        print(f"uninstall: {error}", file=sys.stderr)
        return 2
    except (StillRuns, *REQUEST_ERRORS) as error:
        print(f"uninstall: {error if isinstance(error, StillRuns) else in_words(error)}", file=sys.stderr)
        return 1
    print(f"the operator has ended; {count} GismoNamespaces are without its finalizer, with their data")
    return 0


if __name__ == "__main__":
    sys.exit(main())
