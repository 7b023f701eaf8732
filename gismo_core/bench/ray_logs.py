"""What the processes of a Ray session said last: why a cluster did not start, which Ray itself does not say."""

from __future__ import annotations

from pathlib import Path

_LOGS = ("raylet*.err", "raylet*.out", "gcs_server*.out", "dashboard_agent*.log", "runtime_env_agent*.log")

_DATES = frozenset("[0123456789")  # what a message of Ray's begins with


def said_last(temp_dir: Path, lines: int = 8) -> str:
    """The last lines of the logs of the newest session below `temp_dir` (--temp-dir, RAY_TMPDIR/ray), newest last."""
    found = [path for pattern in _LOGS for path in (temp_dir / "session_latest" / "logs").glob(pattern)]
    said = []
    for path in sorted(found, key=lambda path: path.stat().st_mtime):
        dated = [line for line in path.read_text(errors="replace").splitlines() if line[:1] in _DATES]  # no stacks
        last = dated[-lines:]
        if last:
            said += [f"{path.name}:", *(f"  {line}" for line in last)]
    return "\n".join(said)
