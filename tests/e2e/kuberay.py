"""KubeRay in the cluster, from the manifests of its Go module."""

from __future__ import annotations

import re

import binaries

from e2e import cluster, ray_images

_READY_S = 120


def install() -> None:
    """KubeRay's operator serves afterwards, and both workers have Ray's image."""
    module = binaries.module(binaries.KUBERAY_MODULE, f"v{binaries.KUBERAY}")
    manifests = cluster.kubectl("kustomize", str(module / "config" / "default"))
    (image,) = set(re.findall(r"^\s+image: (\S+)$", manifests, re.MULTILINE))
    cluster.load(ray_images.operator(image))
    cluster.kubectl("apply", "--server-side", "--filename=-", stdin=manifests)
    cluster.load(ray_images.ray())  # while the operator starts
    cluster.kubectl("wait", "--for=condition=Available", "deployment/kuberay-operator", f"--timeout={_READY_S}s")
