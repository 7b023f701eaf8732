"""gismo evict: take a host that is gone out of the store."""

from __future__ import annotations

import click

from gismo_core.cli import exits
from gismo_core.cli.options import Seconds, host_options, json_option, open_store
from gismo_core.cli.output import show_json, size_text, time_text
from gismo_core.errors import InvalidArgument
from gismo_core.records import SILENT_SAMPLES, Eviction, HostInfo, HostState
from gismo_core.store import Store

_STOPPED = """\
It is fenced first: each call of its processes ends with Fenced. What it could still write or reads is used again when all of them
have closed the store, or were killed and it was opened there once more (`gismo info`)."""
_OFF = """\
You say that it is off: what it was writing or reading is used again AT ONCE. If it is only frozen or cut off and goes on, it
overwrites objects of others, and nothing can find that out. Be sure: power it off, or see that its processes are gone."""


@click.command("evict", epilog=exits.HELP)
@click.argument("store", metavar="STORE")
@click.argument("host", metavar="HOST", type=click.IntRange(0, 63))
@click.option("--confirmed-off", is_flag=True, help="You know that it does not run. A wrong word corrupts the store.")
@click.option("--force", is_flag=True, help="Fence it although it was not silent for ten seconds.")
@click.option("--wait", "wait_s", type=Seconds(), default=30.0, show_default=True, help="How long to try.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@host_options
@json_option
def evict_command(
    store: str,
    host: int,
    confirmed_off: bool,
    force: bool,
    wait_s: float,
    dry_run: bool,
    host_id: int | None,
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Take a host that is gone out of the store: its room is used again, its sealed objects stay.

    HOST is its number in `gismo hosts`. A host is taken for gone when its heartbeat stood still for ten seconds.
    """
    with open_store(store, host_id=host_id, state_dir=state_dir) as opened:
        found = _find(opened, host)
        if not as_json:
            click.echo(_plan(found, confirmed_off), err=True)
        if dry_run:
            if as_json:
                show_json({"host": found, "eviction": None})
            return
        told = _Told(host, quiet=as_json)
        done = opened.evict_host(host, confirmed_off, force=force, wait_s=wait_s, progress=told)
    if as_json:
        show_json({"host": found, "eviction": done})
    else:
        click.echo(f"host {host} is out: {done.objects} objects of it stay ({size_text(done.object_bytes)})")


def _find(store: Store, host: int) -> HostInfo:
    for one in store.hosts():
        if one.host_id == host:
            return one
    raise InvalidArgument(f"there is no host {host} in this store: `gismo hosts` lists them")


def _plan(host: HostInfo, confirmed_off: bool) -> str:
    what = (
        f"host {host.host_id}: {host.state.name.lower()}, last seen {time_text(host.heartbeat_unix_ns)}, "
        f"{host.objects} objects ({size_text(host.used_bytes)}), which stay"
    )
    if host.state == HostState.QUIET:
        return f"{what}. It left in order; what it did not need any more is given back."
    return f"{what}.\n{_OFF if confirmed_off else _STOPPED}"


class _Told:
    """Says each step once."""

    def __init__(self, host: int, quiet: bool) -> None:
        self._host, self._quiet, self._last = host, quiet, ""

    def __call__(self, eviction: Eviction) -> None:
        if eviction.state == HostState.ACTIVE:
            text = f"silent at {eviction.silent_samples} of {SILENT_SAMPLES} looks"
        else:
            text = eviction.state.name.lower()
        if text != self._last and not self._quiet:
            click.echo(f"host {self._host}: {text}", err=True)
        self._last = text
