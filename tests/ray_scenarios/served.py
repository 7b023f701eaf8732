"""Clusters in processes of their own, made when a scenario first needs one, made anew when one is spoilt."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ray_scenarios import cluster
from ray_scenarios.outcome import Outcome
from ray_scenarios.table import Scenario
from ray_scenarios.talk import Failed, Peer

_START_S = 180.0
_ATTEMPTS = 3  # Ray gives a node 30 s to start, which a busy machine may not have
_RUN_S = 240.0


class Served:
    """All clusters of a test session or of a long run."""

    def __init__(self, logs: Path | None = None) -> None:
        self._servers: dict[str, tuple[Peer, Path]] = {}
        self._logs = logs  # where to leave what Ray and the scenarios wrote when a run was not good

    def run(self, scenario: Scenario, kill: str, seed: int, kind: str | None = None, spoil: str = "") -> Outcome:
        """Run a scenario on its kind of cluster, or on another; spoil: see server.py."""
        kind = kind or scenario.kind
        outcome = Outcome(scenario.name, kill, seed)
        try:
            peer, _ = self._server(kind)
            outcome = Outcome(**peer.call("run", _RUN_S, scenario=scenario.name, kill=kill, seed=seed, spoil=spoil))
        except Failed as error:
            outcome.broken = str(error)
        if not outcome.clean or (not outcome.good and not spoil):
            self._end(kind, keep_logs=True)
        return outcome

    def _server(self, kind: str) -> tuple[Peer, Path]:
        for attempt in range(_ATTEMPTS):
            if kind in self._servers:
                break
            folder = cluster.make_folder()
            env = cluster.environment(cluster.KINDS[kind], str(folder / "pool"), folder / "state-0")
            peer = Peer("ray_scenarios.server", kind, str(folder), env=env, log=folder / "server.log")
            self._servers[kind] = peer, folder
            try:
                peer.call("ready", _START_S)
            except Failed:
                self._end(kind, keep_logs=True)
                if attempt == _ATTEMPTS - 1:
                    raise
        return self._servers[kind]

    def _end(self, kind: str, keep_logs: bool = False) -> None:
        peer, folder = self._servers.pop(kind, (None, None))
        if peer is None or folder is None:
            return
        if keep_logs and self._logs is not None:
            kept = self._logs / folder.name
            shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("pool", "state-*"), dirs_exist_ok=True)
        peer.end(30.0)
        end_processes_with(f"GISMO_STORE=file:{folder / 'pool'}")
        cluster.remove_folder(folder)

    def end(self) -> None:
        """Stop all of them."""
        for kind in list(self._servers):
            self._end(kind)


def end_processes_with(variable: str) -> None:
    """SIGKILL to every process with this in its environment: what a spoilt cluster has left behind."""
    wanted = variable.encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), 9)
            except OSError:
                continue  # gone, or not ours
