"""Pods for tests: a shell command on a node, with the shared memory."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from e2e import cluster, ray_images

_END_S = 60
_SHARED = {"name": "shared", "hostPath": {"path": cluster.SHARED_IN_NODES, "type": "Directory"}}


@dataclass(slots=True)
class Pods:
    """Pods of one test, on the node that it chooses, with the shared memory mounted at /shared."""

    namespace: str
    names: list[str] = field(default_factory=list)
    user: int = 0

    def run(self, node: str, command: str | list[str], *, wait_for: str = "Succeeded", resource: str = "") -> str:
        """Start a command (of a shell, where it is a string) in a pod of a node and wait for a phase; the pod's name.

        With a resource the container has a share of it and not the folder of all memory.
        """
        name = f"pod-{len(self.names)}"
        shared = {} if resource else {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "nodeName": node,
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "main",
                        "image": ray_images.RAY_NAME,
                        "imagePullPolicy": "Never",
                        "command": ["sh", "-c", command] if isinstance(command, str) else command,
                        "securityContext": {"runAsUser": self.user},  # the folder is root's
                        **({"resources": {"limits": {resource: 1}}} if resource else {}),
                        **shared,
                    }
                ],
                "volumes": [] if resource else [_SHARED],
            },
        }
        self.names.append(name)
        cluster.kubectl("create", "--filename=-", stdin=json.dumps(pod))
        phase = f"--for=jsonpath={{.status.phase}}={wait_for}"
        cluster.kubectl("wait", f"--namespace={self.namespace}", phase, f"pod/{name}", f"--timeout={_END_S}s")
        return name

    def logs(self, name: str) -> str:
        """What a pod wrote."""
        return cluster.kubectl("logs", f"--namespace={self.namespace}", name)

    def address(self, name: str) -> str:
        """A pod's own."""
        return cluster.kubectl(
            "get", f"--namespace={self.namespace}", f"pod/{name}", "--output=jsonpath={.status.podIP}"
        )
