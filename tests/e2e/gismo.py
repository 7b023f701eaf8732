"""Gismo in the cluster, as a user puts it there: the image, the chart, the examples."""

from __future__ import annotations

import subprocess
from pathlib import Path

import binaries
from chart import FOLDER, NAMESPACE, RELEASE

from e2e import cluster, gismo_image, ray_images
from e2e.waiting import until

EXAMPLES = gismo_image.ROOT / "examples"
RAY_IMAGE = "rayproject/ray"  # of the examples
_READY_S = 180


class HelmFailed(RuntimeError):
    """The message has the end of what Helm said."""


def install() -> None:
    """Image and chart; an operator leads and all agents are ready afterwards."""
    cluster.load(gismo_image.ensure())
    install_chart()
    helm("test", RELEASE, f"--timeout={_READY_S}s")


def install_chart(tag: str = "") -> None:
    """The chart, with this tag of the image, which has to be in the nodes."""
    tag = tag or gismo_image.tag()
    values = {"image.repository": gismo_image.REPOSITORY, "image.tag": tag, "image.pullPolicy": "Never"}
    told = [argument for name, value in values.items() for argument in ("--set-string", f"{name}={value}")]
    helm("upgrade", "--install", RELEASE, str(FOLDER), "--create-namespace", "--wait", f"--timeout={_READY_S}s", *told)


def uninstall() -> None:
    """The chart; pools and data stay."""
    helm("uninstall", RELEASE, "--wait", f"--timeout={_READY_S}s")


def as_it_is(path: str) -> str:
    """A file of examples/."""
    return (EXAMPLES / path).read_text()


def example(path: str) -> str:
    """A file of examples/, with the Ray image that is in the nodes."""
    return as_it_is(path).replace(f"{RAY_IMAGE}:{ray_images.RAY}", ray_images.RAY_NAME)


def until_ready(pool: str) -> None:
    """The pool says that it is Ready. ClusterFailed, with what there is to see printed."""
    try:
        cluster.kubectl("wait", "--for=condition=Ready", f"gismopool/{pool}", f"--timeout={_READY_S}s")
    except cluster.ClusterFailed:
        print(describe())
        raise


def remove_pool(pool: str) -> None:
    """The pool and its ranges are gone afterwards; whoever uses them has to go meanwhile.

    Its GismoNodes stay, which have the host ids and the layout's version, as the pool label does.
    """
    until(lambda: _delete(f"gismopool/{pool}"), why=describe)
    until(lambda: not _of_pool("gismonamespaces", pool), why=describe)


def forget_pool(pool: str, folder: Path) -> None:
    """What is left of a pool that was removed: its label and its GismoNodes."""
    assert [path.name for path in folder.iterdir()] == ["label"], list(folder.iterdir())
    cluster.kubectl("delete", "gismonodes", f"--selector=gismo.io/pool={pool}")
    (folder / "label").unlink()


def _delete(what: str) -> bool:
    """False where it is in use."""
    try:
        cluster.kubectl("delete", what, "--ignore-not-found", "--wait=false")
    except cluster.ClusterFailed as error:
        if "is in use" not in str(error):
            raise
        return False
    return True


def _of_pool(kind: str, pool: str) -> list[str]:
    return [one["metadata"]["name"] for one in cluster.items(kind) if one["spec"]["pool"] == pool]


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


def agents() -> list[str]:
    """The uids of the agents' pods that are not ending."""
    found = cluster.items("pods", f"--namespace={NAMESPACE}", "--selector=app.kubernetes.io/component=agent")
    return [one["metadata"]["uid"] for one in found if "deletionTimestamp" not in one["metadata"]]


def allocatable(resource: str) -> int:
    """Shares of all nodes together that the kubelets say may be given out."""
    return sum(int(one["status"]["allocatable"].get(resource, 0)) for one in cluster.items("nodes"))


def upgrade_to_another_tag() -> None:
    """helm upgrade to the same image under another name: all pods of Gismo are made anew, agents one by one."""
    other = f"{gismo_image.tag()}-again"
    cluster.tag(f"{gismo_image.REPOSITORY}:{gismo_image.tag()}", f"{gismo_image.REPOSITORY}:{other}")
    install_chart(other)
