"""The command `gismo-operator`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from gismo_kube import endpoint
from gismo_kube.connection import CannotStart
from gismo_operator.process import Operator, Options

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def options(arguments: list[str]) -> tuple[Options, str]:
    """What was asked for, and the log level."""
    parser = argparse.ArgumentParser(
        prog="gismo-operator",
        description="Divides the memory of GismoPools into Gismo namespaces. Several replicas may run; one leads.",
    )
    parser.add_argument("--namespace", help="Kubernetes namespace of the Lease (default: the pod's own, else default)")
    parser.add_argument("--kubeconfig", help="file (default: the pod's service account, $KUBECONFIG, ~/.kube/config)")
    parser.add_argument(
        "--listen", metavar="[HOST]:PORT", type=endpoint.address, help="answer /metrics, /livez and /readyz there"
    )
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    given = parser.parse_args(arguments)
    namespace = given.namespace or (_POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.exists() else "default")
    return Options(namespace, given.kubeconfig, given.listen), given.log_level


def main(arguments: list[str] | None = None) -> int:
    """Run until told to end; the exit code."""
    chosen, level = options(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr)
    try:
        return Operator(chosen).run()
    except CannotStart as error:
        print(f"gismo-operator: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
