"""gismo bench: forwards to gismo_core.bench, which is loaded only then."""

from __future__ import annotations

import importlib

import click


def _load() -> click.Command:
    try:
        found = importlib.import_module("gismo_core.bench.cli").bench
    except ModuleNotFoundError as error:
        missing = error.name or "gismo_core.bench"

        @click.command("bench")
        def absent() -> None:
            """Measure the store (not installed here)."""
            raise click.ClickException(f"the bench needs {missing}, which is not installed: pip install {missing}")

        return absent
    if not isinstance(found, click.Command):
        raise TypeError("gismo_core.bench.cli.bench is not a click command")
    return found


bench_command = _load()
