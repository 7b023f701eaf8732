"""A Deployment of containers with a share each, for tests of what happens to shares while pods come and go."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e import cluster, gismo, ray_images
from e2e.waiting import until


@dataclass(frozen=True, slots=True)
class Holders:
    """Pods in one Kubernetes namespace; each holds an object in the store and reads it all the time."""

    kubernetes_namespace: str
    resource: str
    name: str = "holders"

    def start(self, replicas: int) -> None:
        """Make the Deployment; it is not waited for."""
        script = Path(__file__).with_name("holder_script.py").read_text()
        container = {
            "name": "main",
            "image": ray_images.RAY_NAME,
            "imagePullPolicy": "Never",
            "command": ["python3", "-c", script],
            "resources": {"requests": {"cpu": "5m", "memory": "32Mi"}, "limits": {self.resource: 1}},
            "readinessProbe": {"exec": {"command": ["pgrep", "python3"]}, "periodSeconds": 5},
        }
        labels = {"app": self.name}
        pod = {"containers": [container], "terminationGracePeriodSeconds": 5}
        self._kubectl(
            "create",
            "--filename=-",
            stdin=json.dumps(
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {"name": self.name},
                    "spec": {
                        "replicas": replicas,
                        "selector": {"matchLabels": labels},
                        "template": {"metadata": {"labels": labels}, "spec": pod},
                    },
                }
            ),
        )

    def scale(self, replicas: int) -> None:
        """So many from now on; not waited for."""
        self._kubectl("scale", f"deployment/{self.name}", f"--replicas={replicas}")

    def delete(self, pod: str) -> None:
        """One pod, which is replaced; not waited for."""
        self._kubectl("delete", f"pod/{pod}", "--wait=false", "--ignore-not-found")

    def remove(self, within_s: float) -> None:
        """The Deployment and all its pods are gone afterwards."""
        self._kubectl("delete", f"deployment/{self.name}", "--ignore-not-found")
        self._kubectl("delete", "pods", f"--selector=app={self.name}", "--field-selector=status.phase=Failed")
        until(lambda: not self.pods(), within_s)

    def pods(self) -> list[dict[str, Any]]:
        """All that are there, also those that ended or are ending."""
        return cluster.items("pods", f"--namespace={self.kubernetes_namespace}", f"--selector=app={self.name}")

    def running(self) -> list[dict[str, Any]]:
        """Those that hold a share for certain: Ready, and not ending."""
        return [one for one in self.pods() if cluster.is_up(one)]

    def failed(self) -> dict[str, str]:
        """Pods that the kubelet did not let in, or that ended by themselves: name → reason and message."""
        return {
            one["metadata"]["name"]: f"{one['status'].get('reason', '')}: {one['status'].get('message', '')}"
            for one in self.pods()
            if one["status"]["phase"] in ("Failed", "Succeeded")
        }

    def until_running(self, wanted: int, within_s: float) -> None:
        """So many hold a share, and none is on its way in or out."""

        def settled() -> bool:
            living = [one for one in self.pods() if one["status"]["phase"] not in ("Failed", "Succeeded")]
            return len(living) == len(self.running()) == wanted

        until(settled, within_s, lambda: f"{self.failed()}\n{gismo.describe()}")

    def ended_badly(self) -> list[str]:
        """What a container said that read wrong bytes, or ended by an error, in this life or the one before."""
        found = []
        for one in self.pods():
            # A kubelet that starts anew before a container has begun admits its pod once more, and turns it away if the plugin
            # is not back yet; containerd then gives 128 for what has never run. Another pod takes its place.
            was_turned_away = one["status"].get("reason") == "UnexpectedAdmissionError"
            fine = (0, 137, 143, *([128] if was_turned_away else []))  # 137, 143: killed, or told to end, by this test
            for status in one["status"].get("containerStatuses", []):
                for state in (status.get("state", {}), status.get("lastState", {})):
                    ended = state.get("terminated", {})
                    if ended.get("exitCode", 0) not in fine:
                        found.append(f"{one['metadata']['name']}: {ended}: {self.logs(one)}")
        return found

    def logs(self, pod: dict[str, Any]) -> str:
        """The end of what a pod said."""
        return self._kubectl("logs", pod["metadata"]["name"], "--tail=5")

    def said(self, pod: dict[str, Any]) -> dict[str, Any]:
        """Which store it opened, as which host."""
        told: dict[str, Any] = json.loads(self._kubectl("logs", pod["metadata"]["name"]).splitlines()[0])
        return told

    def _kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return cluster.kubectl(f"--namespace={self.kubernetes_namespace}", *arguments, stdin=stdin)


def accounted(namespace: str) -> dict[str, set[str]]:
    """Who holds shares of a Gismo namespace, as the agents say it: node → pods as NAMESPACE/NAME (at most 8 each)."""
    found = {}
    for node in cluster.items("gismonodes"):
        for entry in node.get("status", {}).get("inUse", []):
            if entry["namespace"] == namespace:
                found[node["spec"]["node"]] = set(entry["holders"])
    return found
