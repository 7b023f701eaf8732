"""gismo format, info, hosts: the store as a whole."""

from __future__ import annotations

import os
import sys

import click

import gismo_core
from gismo_core.cli import exits
from gismo_core.cli.options import json_option, open_to_look, or_none, store_argument
from gismo_core.cli.output import SIZE, plain, progress, show_json, show_pairs, show_table, size_text, time_text
from gismo_core.records import HostInfo, StoreInfo


def _mode(_: click.Context, __: click.Parameter, value: str) -> int:
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 < mode <= 0o777:
        raise click.BadParameter(f"{value!r} is no file mode; write for example 0600 or 660")
    return mode


@click.command("format", epilog=exits.HELP)
@click.argument("store", metavar="STORE")
@click.option("--size", type=SIZE, help="4GiB, 512MiB, ...; a file is made that large. Default: what is there.")
@click.option("--max-objects", type=click.IntRange(1), help="Default: from the size.")
@click.option("--max-hosts", type=click.IntRange(1, 64), help="Default: from the size.")
@click.option(
    "--coherence",
    type=click.Choice(["hardware", "software"]),
    default="hardware",
    show_default=True,
    help="Whether the hosts' caches are kept coherent by hardware (one machine always is).",
)
@click.option("--mode", callback=_mode, default="0600", show_default=True, help="Permissions of a file that is made.")
@click.option("--force", is_flag=True, help="Overwrite what is there, be it a store or something else.")
@click.option("--no-populate", is_flag=True, help="Do not touch every page now; a put may then meet a full tmpfs.")
@json_option
def format_command(
    store: str,
    size: int | None,
    max_objects: int | None,
    max_hosts: int | None,
    coherence: str,
    mode: int,
    force: bool,
    no_populate: bool,
    as_json: bool,
) -> None:
    """Make an empty store on a file or a DAX device.

    Nothing that is already there is overwritten without --force.
    """
    if size is None and not store.startswith("dax:") and not os.path.exists(store.removeprefix("file:")):
        raise click.UsageError(f"{store} does not exist: say how large to make it, for example --size 4GiB")
    with progress("formatting", size, wanted=not as_json and not no_populate) as update:
        info = gismo_core.format(
            store,
            size=size,
            max_objects=max_objects,
            max_hosts=max_hosts,
            coherence=coherence,
            mode=mode,
            force=force,
            populate=not no_populate,
            progress=update,
        )
    if as_json:
        show_json(info)
        return
    click.echo(
        f"{store}: store {info.store_uuid}, {size_text(info.data_bytes)} for up to {info.max_objects} objects "
        f"of up to {info.max_hosts} hosts"
    )


@click.command("info", epilog=exits.HELP)
@store_argument
@json_option
def info_command(store: str, as_json: bool) -> None:
    """Show what a store is and how full it is."""
    info = gismo_core.probe(store)
    stats, hosts = or_none(lambda: _look(store)) or (None, ())
    tested = [host for host in hosts if host.litmus is not None]
    if as_json:
        litmus = [{"host_id": host.host_id, **plain(host.litmus)} for host in tested]
        show_json({"info": info, "stats": stats, "litmus": litmus})
        return
    pairs = _info_pairs(store, info) + (_stats_pairs(stats) if stats is not None else [])
    show_pairs(pairs + [("litmus", litmus_text(host)) for host in tested])


def _look(path: str) -> tuple[gismo_core.Stats | None, tuple[HostInfo, ...]]:
    with open_to_look(path) as store:
        return or_none(store.stats), or_none(store.hosts) or ()


def litmus_text(host: HostInfo) -> str:
    """'host 0: holds (with host 1, 2026-01-31 12:00:00)'."""
    verdict = host.litmus
    if verdict is None:
        return f"host {host.host_id}: not run"
    when = time_text(verdict.tested_unix_ns)
    return f"host {host.host_id}: {verdict} (with host {verdict.partner_host}, {when})"


def _info_pairs(path: str, info: StoreInfo) -> list[tuple[str, str]]:
    return [
        ("store", path),
        ("uuid", str(info.store_uuid)),
        ("medium", "device-DAX" if info.is_dax else "file"),
        ("size", f"{size_text(info.size_bytes)} ({size_text(info.data_bytes)} for objects)"),
        ("formatted", time_text(info.created_unix_ns)),
        ("format version", str(info.format_version)),
        ("coherence", info.coherence),
        ("hosts at most", str(info.max_hosts)),
        ("objects at most", str(info.max_objects)),
        ("arenas", f"{info.arenas} of {size_text(info.arena_bytes)}"),
    ]


def _stats_pairs(stats: gismo_core.Stats) -> list[tuple[str, str]]:
    share = 100 * stats.used_bytes / max(1, stats.data_bytes)
    return [
        ("used", f"{size_text(stats.used_bytes)} ({share:.1f} %)"),
        ("free", f"{size_text(stats.free_bytes)}, largest hole {size_text(stats.largest_free_bytes)}"),
        (
            "objects",
            (
                f"{stats.sealed_objects} sealed, {stats.writing_objects} being written, "
                f"{stats.deleted_objects} deleted; {stats.free_objects} more fit"
            ),
        ),
    ]


@click.command("hosts", epilog=exits.HELP)
@store_argument
@json_option
def hosts_command(store: str, as_json: bool) -> None:
    """List the hosts that have joined the store."""
    with open_to_look(store) as opened:
        hosts = opened.hosts()
    if as_json:
        show_json(hosts)
        return
    if not hosts:
        click.echo("no host has joined this store yet", err=sys.stdout.isatty())
        return
    show_table(
        (">host", "state", ">objects", ">bytes", ">incarnation", "joined", "last seen", "litmus", "boot id"),
        [
            (
                f"{host.host_id}{'*' if host.is_self else ''}",
                "suspect" if host.suspect else host.state.name.lower(),
                str(host.objects),
                size_text(host.used_bytes),
                str(host.incarnation),
                time_text(host.joined_unix_ns),
                time_text(host.heartbeat_unix_ns),
                str(host.litmus or "-"),
                str(host.boot_id),
            )
            for host in hosts
        ],
    )
