"""Gismo in the cluster, as a user puts it there: the image, the chart, the examples."""

from __future__ import annotations

import subprocess

import binaries
from chart import FOLDER, NAMESPACE, RELEASE

from e2e import cluster, gismo_image, ray_images

EXAMPLES = gismo_image.ROOT / "examples"
_READY_S = 180


class HelmFailed(RuntimeError):
    """The message has the end of what Helm said."""


def install() -> None:
    """Image and chart; an operator leads and all agents are ready afterwards."""
    cluster.load(gismo_image.ensure())
    values = {"image.repository": gismo_image.REPOSITORY, "image.tag": gismo_image.tag(), "image.pullPolicy": "Never"}
    told = [argument for name, value in values.items() for argument in ("--set-string", f"{name}={value}")]
    helm("upgrade", "--install", RELEASE, str(FOLDER), "--create-namespace", "--wait", f"--timeout={_READY_S}s", *told)
    helm("test", RELEASE, f"--timeout={_READY_S}s")


def uninstall() -> None:
    """The chart; pools and data stay."""
    helm("uninstall", RELEASE, "--wait", f"--timeout={_READY_S}s")


def example(path: str) -> str:
    """A file of examples/, with the Ray image that is in the nodes."""
    return (EXAMPLES / path).read_text().replace(f"rayproject/ray:{ray_images.RAY}", ray_images.RAY_NAME)


def helm(*arguments: str) -> str:
    """One Helm command at the cluster; its output."""
    command = [str(binaries.ensure("helm")), "--kubeconfig", str(cluster.kubeconfig()), "--namespace", NAMESPACE]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HelmFailed(f"helm {' '.join(arguments[:2])}: {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def describe() -> str:
    """What one wants to see when something is not as it should be."""
    parts = [
        cluster.kubectl("get", "pods", "--all-namespaces", "--output=wide"),
        cluster.kubectl("get", "gismopools,gismonamespaces,gismonodes", "--output=yaml"),
        *(
            cluster.kubectl(
                "logs", f"--namespace={NAMESPACE}", f"--selector=app.kubernetes.io/component={one}", "--tail=60"
            )
            for one in ("operator", "agent")
        ),
    ]
    return "\n".join(parts)
