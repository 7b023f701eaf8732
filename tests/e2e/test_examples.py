"""What lies in examples/ for Ray, applied as it is: a RayJob and a RayService on a Gismo namespace."""

from __future__ import annotations

import json

import pytest

from e2e import cluster, gismo
from e2e.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

_STARTED_S = 300
# The service lies in the head's container; what it answers is the sum of a table in the store.
_ASK = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/', timeout=10).read().decode())"


def status(what: str, path: str) -> str:
    return cluster.kubectl("get", what, f"--output=jsonpath={{.status.{path}}}")


def test_rayjob(emulated_pool: str) -> None:
    assert emulated_pool
    cluster.kubectl("apply", "--filename=-", stdin=gismo.example("ray/rayjob.yaml"))
    try:
        until(lambda: status("rayjob/rayjob", "jobStatus") in ("SUCCEEDED", "FAILED"), _STARTED_S, gismo.describe)
        assert status("rayjob/rayjob", "jobStatus") == "SUCCEEDED", gismo.describe()
        pod = cluster.kubectl("get", "pods", "--selector=job-name=rayjob", "--output=name").split()[0]
        assert "16777216.0" in cluster.kubectl("logs", pod)
    finally:
        cluster.kubectl("delete", "rayjob/rayjob", "--wait")
        until(lambda: not cluster.kubectl("get", "pods", "--selector=ray.io/cluster", "--output=name"))


def test_rayservice(emulated_pool: str) -> None:
    assert emulated_pool
    cluster.kubectl("apply", "--filename=-", stdin=gismo.example("ray/rayservice.yaml"))
    try:
        until(lambda: status("rayservice/rayservice", "serviceStatus") == "Running", _STARTED_S, gismo.describe)
        head = cluster.kubectl("get", "pods", "--selector=ray.io/node-type=head", "--output=name").split()[0]
        assert json.loads(cluster.kubectl("exec", head, "--", "python3", "-c", _ASK)) == {"total": 16777216.0}
    finally:
        cluster.kubectl("delete", "--filename=-", "--wait", stdin=gismo.example("ray/rayservice.yaml"))
        until(lambda: not cluster.kubectl("get", "pods", "--selector=ray.io/cluster", "--output=name"))
