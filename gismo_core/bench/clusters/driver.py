"""The driver of one cluster: ``python -m gismo_core.bench.clusters.driver DIRECTORY SHAPE``.

Starts the nodes, says so with a line of JSON on stdout, and then does what lines of JSON on stdin ask for. Ends,
with the whole cluster, when stdin does or its parent dies.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import traceback
from typing import Any

from gismo_core.bench.worker import die_with_parent


def main(directory: str, shape: str) -> int:
    """Serve until stdin ends."""
    die_with_parent()
    # What Ray prints must not get between us and who asks.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    try:
        cluster = importlib.import_module("gismo_core.bench.clusters.work.cluster")
        here = cluster.start(json.loads(shape), directory)
    except Exception as problem:  # noqa: BLE001 - told to who asked, whatever it is
        traceback.print_exc()
        answer({"error": f"the cluster did not start: {type(problem).__name__}: {problem}"})
        return 1
    answer({"ok": None})
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            module, _, function = asked["do"].partition(".")
            try:
                work = getattr(importlib.import_module(f"gismo_core.bench.clusters.work.{module}"), function)
                answer({"ok": work(here, **asked["with"])})
            except Exception as problem:  # noqa: BLE001 - told to who asked, whatever it is
                traceback.print_exc()
                answer({"error": f"{asked['do']}: {type(problem).__name__}: {str(problem)[-1500:]}"})
    finally:
        here.end()
    return 0


if __name__ == "__main__":
    logging.getLogger("ray").setLevel(logging.WARNING)
    sys.exit(main(*sys.argv[1:]))
