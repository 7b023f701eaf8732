"""The command `gismo-agent`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from gismo_deviceplugin.agent import Agent, Options
from gismo_deviceplugin.kubelet import pod_resources, registrar
from gismo_deviceplugin.pool import state
from gismo_deviceplugin.pool.dax import nodes
from gismo_deviceplugin.pool.dax.system import System
from gismo_deviceplugin.pool.media import CARVING
from gismo_deviceplugin.pool.proof import PATIENCE_S
from gismo_kube import endpoint
from gismo_kube.connection import CannotStart


def options(arguments: list[str]) -> tuple[Options, str]:
    """What was asked for, and the log level."""
    parser = argparse.ArgumentParser(
        prog="gismo-agent",
        description="The agent of one node: makes the stores of its GismoPools, and offers them to the kubelet.",
    )
    parser.add_argument("--node", default=os.environ.get("NODE_NAME"), help="name of this Node (default $NODE_NAME)")
    parser.add_argument("--kubeconfig", help="file (default: the pod's service account, $KUBECONFIG, ~/.kube/config)")
    parser.add_argument(
        "--device-plugins", type=Path, default=registrar.FOLDER, help="the kubelet's folder of sockets (%(default)s)"
    )
    parser.add_argument(
        "--pod-resources", type=Path, default=pod_resources.SOCKET, help="the kubelet's socket (%(default)s)"
    )
    parser.add_argument(
        "--state", type=Path, default=state.ROOT, help="where state directories are, on a tmpfs (%(default)s)"
    )
    parser.add_argument(
        "--runtime", type=Path, default=Path("/var/lib/gismo/runtime"), help="where gismo_core for containers is laid out (%(default)s)"
    )  # fmt: skip
    parser.add_argument("--sysfs", type=Path, default=Path("/sys"), help="where CXL regions are found (%(default)s)")
    parser.add_argument(
        "--devices", type=Path, default=nodes.FOLDER, help="where containers' DAX devices are made (%(default)s)"
    )
    parser.add_argument(
        "--carving", type=Path, default=CARVING, help="lock and checkpoint of carving, on a tmpfs (%(default)s)"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE_S,
        metavar="S",
        help="how late what other nodes say of themselves may be, before it is not believed to be the same memory (%(default)s)",
    )
    parser.add_argument(
        "--listen", metavar="[HOST]:PORT", type=endpoint.address, help="answer /metrics, /livez and /readyz there"
    )
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    given = parser.parse_args(arguments)
    if not given.node:
        parser.error("say --node, or set $NODE_NAME (in a pod by the downward API: spec.nodeName)")
    chosen = Options(
        node=given.node,
        kubeconfig=given.kubeconfig,
        device_plugins=given.device_plugins,
        pod_resources=given.pod_resources,
        state=given.state,
        runtime=given.runtime,
        carving=given.carving,
        devices=given.devices,
        system=System(given.sysfs),
        patience_s=given.patience,
        listen=given.listen,
    )
    return chosen, given.log_level


def main(arguments: list[str] | None = None) -> int:
    """Run until told to end; the exit code."""
    return run(*options(sys.argv[1:] if arguments is None else arguments))


def run(chosen: Options, level: str) -> int:
    """As main()."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr)
    try:
        return asyncio.run(Agent(chosen).run())
    except CannotStart as error:
        print(f"gismo-agent: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
