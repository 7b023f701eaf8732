"""`gismo` itself: which commands there are, and how every error ends."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

import gismo_core
from gismo_core.cli import exits
from gismo_core.errors import GismoError

# command: module of this package, loaded only when it is used
_COMMANDS = {
    "format": "pool",
    "info": "pool",
    "hosts": "pool",
    "fsck": "check",
    "ls": "objects",
    "put": "objects",
    "get": "objects",
    "rm": "objects",
    "top": "top",
    "ray": "ray",
    "evict": "evict",
    "doctor": "doctor",
    "litmus": "litmus",
    "bench": "bench",
    "demo": "demo",
}


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        loaded = importlib.import_module(f"gismo_core.cli.{module}")
        command: click.Command = getattr(loaded, f"{cmd_name}_command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise _ReaderLeft from error  # click would end with a code of its own
        return result


class _ReaderLeft(Exception):
    """Whoever read our output has left, as in `gismo ls | head`."""


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"gismo {gismo_core.__version__}")
        ctx.exit()


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=exits.HELP,
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show it.")
def gismo() -> None:
    """Objects in memory that several hosts share: one copy, no daemon.

    A STORE is file:PATH, dax:PATH, or a bare path (dax for a character device, else file). Where it is shown as [STORE]
    it may be left out: then it is $GISMO_STORE.

    \b
    gismo format --size 4GiB /dev/shm/pool
    gismo put /dev/shm/pool FILE          prints a handle
    gismo get /dev/shm/pool HANDLE
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `gismo`; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stdout is None:  # closed by who started us
        click.echo("gismo: standard output is closed: send it to /dev/null if nobody is to see it", err=True)
        return exits.ERROR
    try:
        try:
            result: Any = gismo.main(args=given, prog_name="gismo", standalone_mode=False)
        except click.Abort:
            return _interrupted()
        return result if isinstance(result, int) else exits.OK
    except KeyboardInterrupt:
        return _interrupted()
    except _ReaderLeft:
        # What is still buffered has nowhere to go, and the interpreter would complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.NO_READER
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        if "--json" in given:
            _complain_json("Usage", error.format_message())
        else:
            error.show()
        return error.exit_code
    except (GismoError, OSError) as error:
        code = exits.code_of(error)
        if "--json" in given:
            _complain_json(type(error).__name__, _in_words(error))
        else:
            click.echo(f"gismo: {_in_words(error)}", err=True)
        return code


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, GismoError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def _interrupted() -> int:
    click.echo("gismo: interrupted", err=True)
    return exits.INTERRUPTED


def _complain_json(kind: str, message: str) -> None:
    click.echo(json.dumps({"error": {"type": kind, "message": message}}), err=True)
