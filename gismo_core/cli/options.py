"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

import gismo_core
from gismo_core.errors import GismoError, InvalidArgument, NameNotFound
from gismo_core.handles import Handle
from gismo_core.store import Store

_Function = TypeVar("_Function", bound=Callable[..., Any])


def store_argument(function: _Function) -> _Function:
    """STORE, or $GISMO_STORE where it is the only argument."""
    return click.argument("store", metavar="[STORE]", envvar="GISMO_STORE", required=True)(function)


def json_option(function: _Function) -> _Function:
    """--json: machine-readable output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def host_options(function: _Function) -> _Function:
    """--host-id and --state-dir: which host this process belongs to."""
    function = click.option(
        "--host-id", type=click.IntRange(0, 63), help="Take this host's place (default $GISMO_HOST_ID, else the own)."
    )(function)
    return click.option(
        "--state-dir",
        type=click.Path(file_okay=False),
        help="Where the processes of this host meet (default $GISMO_STATE_DIR, else /run/gismo, ...).",
    )(function)


def open_store(
    path: str, *, host_id: int | None = None, state_dir: str | None = None, read_only: bool = False
) -> Store:
    """Open for a command."""
    return gismo_core.open(path, host_id=host_id, state_dir=state_dir, read_only=read_only)


def resolve(store: Store, text: str, wait_s: float | None = None) -> Handle:
    """HANDLE|NAME: what reads as a handle is one, all else is a name."""
    if not text.strip().lower().startswith("gismo1-"):
        return store.lookup(text, wait_s)
    try:
        return Handle.parse(text)
    except InvalidArgument as error:
        try:
            return store.lookup(text, wait_s)  # a name may look like that, too
        except NameNotFound:
            raise error from None


def or_none(call: Callable[[], Any]) -> Any:
    """What a read-only look cannot tell is left out instead of failing the whole command."""
    try:
        return call()
    except GismoError:
        return None
