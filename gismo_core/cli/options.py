"""Options and arguments that several commands share."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

import gismo_core
from gismo_core.errors import GismoError, InvalidArgument, NameNotFound
from gismo_core.handles import Handle
from gismo_core.store import Store


class Seconds(click.FloatRange):
    """A number of seconds from `least` on; a day at most where somebody is to see the end of it."""

    name = "seconds"

    def __init__(self, least: float = 0.0, most: float | None = None) -> None:
        super().__init__(least, most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):  # which is neither below nor above anything
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


_Function = TypeVar("_Function", bound=Callable[..., Any])


def store_argument(function: _Function) -> _Function:
    """STORE, or $GISMO_STORE where it is the only argument."""
    return click.argument("store", metavar="[STORE]", envvar="GISMO_STORE", required=False, callback=_named)(function)


def _named(_: click.Context, __: click.Parameter, value: str | None) -> str:
    if value is None:
        raise click.UsageError("no store was named: give its path, or set GISMO_STORE")
    return value


def json_option(function: _Function) -> _Function:
    """--json: machine-readable output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def address_option(function: _Function) -> _Function:
    """--address: which Ray cluster."""
    return click.option(
        "--address", metavar="HOST:PORT", help="GCS of the Ray cluster (default $RAY_ADDRESS, else auto)."
    )(function)


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


def open_store(path: str, *, host_id: int | None = None, state_dir: str | None = None) -> Store:
    """Open and take part."""
    return gismo_core.open(path, host_id=host_id, state_dir=state_dir)


def open_to_look(path: str, *, host_id: int | None = None, state_dir: str | None = None) -> Store:
    """Open to look only: as a process of this host if it takes part already, which shows pins and processes;
    else read-only, since looking should not make this machine a host of the store."""
    info = gismo_core.probe(path)
    folders = [Path(state_dir)] if state_dir is not None else [folder for folder, _ in state_dir_candidates()]
    if any(_is_there(folder / info.store_uuid.hex / "state") for folder in folders):
        try:
            return gismo_core.open(path, host_id=host_id, state_dir=state_dir)
        except GismoError:
            pass  # damaged, or not ours: what can be seen without taking part is shown
    return gismo_core.open(path, read_only=True)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a directory of another user, who is another host
        return False


def state_dir_candidates() -> list[tuple[Path, bool]]:
    """Where the state directory is looked for, in order (host.c), and whether it counts only on a tmpfs."""
    given = os.environ.get("GISMO_STATE_DIR")
    if given:
        return [(Path(given), False)]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    tail = [(Path(runtime) / "gismo", True)] if runtime else []
    return [(Path("/run/gismo"), True), *tail, (Path(f"/dev/shm/gismo-{os.geteuid()}"), False)]


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
