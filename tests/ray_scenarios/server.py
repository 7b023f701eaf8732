"""The process that has a cluster and runs scenarios on it: python -m ray_scenarios.server FD KIND FOLDER."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import Any

from ray_scenarios import cluster, sabotage, table, talk
from ray_scenarios.outcome import Outcome
from ray_scenarios.run import Proxy, Run
from ray_scenarios.talk import Failed, eventually

_SPOILT_S = 5.0  # how long to wait for what will not happen


class Server:
    """Its methods are called by served.py."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._cluster = cluster.TwoNodes(cluster.KINDS[kind], folder)
        self._scenarios = table.scenarios()
        self._idle: dict[int, list[Proxy]] = {0: [], 1: []}

    def ready(self) -> bool:
        """The cluster stands."""
        return True

    def run(self, scenario: str, kill: str, seed: int, spoil: str = "") -> dict[str, Any]:
        """One run; an Outcome as JSON. spoil: a rule of the keeper to break meanwhile, or "full": no room in the pool."""
        outcome = Outcome(scenario, kill, seed)
        begin = time.monotonic()
        run = Run(self._cluster, outcome, self._idle)
        try:
            if spoil == "full":
                run.fill(0, run.part(1))
            elif spoil:
                run.in_keeper(sabotage.apply, spoil)
            if spoil:
                run.patience_s = _SPOILT_S
            self._scenarios[scenario].function(run, kill)
            run.finish()
        except Exception as error:  # noqa: BLE001 - told to the one who judges
            if _is_a_loss(error):  # met where the scenario itself reads, before a check could
                outcome.lost.append(f"{type(error).__name__}: {str(error)[-600:]}")
            else:
                outcome.broken = traceback.format_exc()
        if outcome.broken or outcome.lost:
            run.abandon()  # not above: there the exception and its frames hold references
        if spoil:
            run.in_keeper(sabotage.restore)
            run.settle()
            outcome.clean = self._emptied()
        outcome.wall_s = round(time.monotonic() - begin, 2)
        return outcome.as_json()

    def _emptied(self) -> bool:
        try:
            eventually(lambda: not self._cluster.records(), "what a broken keeper left is freed")
        except Failed:
            return False
        return True

    def end(self) -> None:
        """Stop the cluster."""
        self._cluster.end()


def _is_a_loss(error: BaseException) -> bool:
    """ObjectLostError, also as the cause of a task's error."""
    import ray

    lost = ray.exceptions.ObjectLostError
    return isinstance(error, lost) or isinstance(getattr(error, "cause", None), lost)


def main(file_descriptor: str, kind: str, folder: str) -> None:
    """Serve until standard input ends."""
    server = Server(kind, Path(folder))
    talk.serve(server, int(file_descriptor))
    server.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
