"""Stock Ray on the cluster by KubeRay: what Gismo is added to."""

from __future__ import annotations

import json

import pytest

from e2e import cluster, ray_images

pytestmark = pytest.mark.e2e

_READY_S = 180
# How many nodes of Ray run a task of a group that wants two.
_WHERE = """
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as In

ray.init("auto", log_to_driver=False)
group = placement_group([{"worker": 1}] * 2, strategy="STRICT_SPREAD")
ray.get(group.ready(), timeout=60)

@ray.remote(num_cpus=0, resources={"worker": 1})
def where():
    return ray.get_runtime_context().get_node_id()

places = [In(group, placement_group_bundle_index=index) for index in range(2)]
print(len(set(ray.get([where.options(scheduling_strategy=place).remote() for place in places], timeout=60))))
"""


def _pod(arguments: dict[str, str], group: str) -> dict[str, object]:
    spread = {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": {"matchLabels": {"ray.io/group": group}}, "topologyKey": "kubernetes.io/hostname"}
            ]
        }
    }
    container = {
        "name": "ray",
        "image": ray_images.RAY_NAME,
        "imagePullPolicy": "Never",
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
    }
    return {
        "rayStartParams": arguments,
        "template": {"spec": {"affinity": spread, "containers": [container], "terminationGracePeriodSeconds": 1}},
    }


def test_a_ray_cluster_comes_up_on_both_workers(namespace: str) -> None:
    workers = _pod({"num-cpus": "1", "resources": """'{"worker": 1}'"""}, "workers")
    described = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "stock", "namespace": namespace},
        "spec": {
            "rayVersion": ray_images.RAY,
            "headGroupSpec": _pod({"num-cpus": "0"}, "headgroup"),
            "workerGroupSpecs": [
                {"groupName": "workers", "replicas": 2, "minReplicas": 2, "maxReplicas": 2, **workers}
            ],
        },
    }
    cluster.kubectl("create", "--filename=-", stdin=json.dumps(described))
    at = f"--namespace={namespace}"
    ready = "--for=jsonpath={.status.state}=ready"
    cluster.kubectl("wait", at, ready, "raycluster/stock", f"--timeout={_READY_S}s")
    head = cluster.kubectl("get", at, "pods", "--selector=ray.io/node-type=head", "--output=name").strip()
    assert cluster.kubectl("exec", at, head, "--", "python3", "-c", _WHERE).split()[-1] == "2"
