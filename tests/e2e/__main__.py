"""make e2e-up, kind-up, e2e-down: a cluster with KubeRay for the end-to-end tests, and for who wants to try Gismo.

    python -m e2e up [--node-image IMAGE]       bring it up, or the parts that are missing; minutes when nothing is cached
    python -m e2e try [--node-image IMAGE]      the same, with Gismo and the pool of examples/emulated in it
    python -m e2e down                          take away all of it but the cache

IMAGE is a stock image of kind, where a registry is at hand; else the nodes' image is built here.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import binaries

from e2e import cluster, debian, engine, gismo, gismo_image, kuberay, node_image, ray_images

_NEXT = """
A pool of 2 GiB is Ready, shared by both workers. Next:

    alias kubectl={kubectl}
    kubectl apply -f examples/emulated/raycluster.yaml
    kubectl get raycluster,gismopools,gismonamespaces
    kubectl exec -it $(kubectl get pod -l ray.io/node-type=head -o name) -- python3 -c '
    import numpy, ray
    ray.init("auto")
    table = ray.put(numpy.ones(1 << 26))
    print(ray.get(ray.remote(lambda array: array.sum()).remote(table)))'

make e2e-down takes all of it away."""

_Result = TypeVar("_Result")
_FAILURES = (
    binaries.BuildFailed,
    cluster.ClusterFailed,
    debian.BootstrapFailed,
    engine.EngineFailed,
    gismo.HelmFailed,
    gismo_image.GismoImageFailed,
    node_image.NodeImageFailed,
    ray_images.RayImageFailed,
)


def up(stock_image: str) -> None:
    """All that is missing, with the time that each part took."""
    _timed("engine", engine.bring_up)
    if not cluster.exists():
        name = stock_image or _timed("node image", node_image.ensure)
        _timed("cluster", lambda: cluster.create(name))
    _timed("nodes Ready", cluster.settle)
    _timed("KubeRay", kuberay.install)
    print(f"export KUBECONFIG={cluster.kubeconfig()}")


def try_it(stock_image: str) -> None:
    """The cluster, Gismo from this tree and a pool; says what to type next."""
    up(stock_image)
    _timed("Gismo", gismo.install)
    if not stock_image:  # where no registry was asked, the examples' image is the one that was built here
        cluster.tag(ray_images.RAY_NAME, f"{gismo.RAY_IMAGE}:{ray_images.RAY}")
    cluster.kubectl("apply", "--filename=-", stdin=gismo.as_it_is("emulated/gismopool.yaml"))
    _timed("GismoPool Ready", lambda: gismo.until_ready("rack1"))
    print(_NEXT.format(kubectl=binaries.ensure("kubectl"), image=f"{gismo.RAY_IMAGE}:{ray_images.RAY}"))
    if not stock_image:
        print(
            f"In the nodes {gismo.RAY_IMAGE}:{ray_images.RAY} is Debian's Python with Ray from PyPI: no registry was asked."
        )


def down() -> None:
    """The cluster, and the engine if it was started here."""
    if engine.answers():
        _timed("cluster", cluster.delete)
    _timed("engine", engine.take_down)
    cluster.forget()


def _timed(what: str, do: Callable[[], _Result]) -> _Result:
    begin = time.monotonic()
    result = do()
    print(f"{what}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    return result


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m e2e", description="A cluster for the end-to-end tests")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("up", "bring it up"), ("try", "bring it up with Gismo and a pool, to try it")):
        starting = commands.add_parser(name, help=what)
        starting.add_argument(
            "--node-image", default="", help="a stock image of kind (default: one that is built here)"
        )
    commands.add_parser("down", help="take it away")
    options = parser.parse_args(arguments)
    try:
        if options.command == "up":
            up(options.node_image)
        elif options.command == "try":
            try_it(options.node_image)
        else:
            down()
    except _FAILURES as error:
        print(error, file=sys.stderr)
        return 3 if isinstance(error, binaries.NotToBeHad) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
