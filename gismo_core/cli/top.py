"""gismo top: who uses the store, live."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from dataclasses import dataclass
from typing import Any

import click

from gismo_core.cli import exits, held_by_ray
from gismo_core.cli.options import Seconds, address_option, host_options, json_option, open_store, store_argument
from gismo_core.cli.output import plain, size_text, table_text, time_text
from gismo_core.records import HostInfo, ProcessInfo, Stats, TagInfo
from gismo_core.store import Store

_TAGS_SHOWN = 10
_PROCESSES_SHOWN = 20
_COUNTERS = ("puts", "gets", "deletes", "put_bytes", "get_bytes")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one look sees; `monotonic_s` is when."""

    monotonic_s: float
    stats: Stats
    hosts: tuple[HostInfo, ...]
    pins_of_hosts: dict[int, int]
    processes: tuple[ProcessInfo, ...]
    tags: tuple[TagInfo, ...]
    ray: held_by_ray.Groups | None = None


@click.command("top", epilog=exits.HELP)
@store_argument
@click.option("--interval", "interval_s", type=Seconds(0.05, 86400), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="One look (rates over one interval), then end.")
@click.option("--ray", "with_ray", is_flag=True, help="Also ask the Ray cluster who holds what it keeps.")
@address_option
@host_options
@json_option
def top_command(
    store: str,
    interval_s: float,
    once: bool,
    with_ray: bool,
    address: str | None,
    host_id: int | None,
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Show bytes, objects, pins and rates per host, process and tag, until Ctrl-C.

    Processes and their rates are those of this host. What Ray keeps is shown by job, task or actor, and node; with
    --ray also by the processes that hold it. --json prints one line per interval.
    """
    with (
        open_store(store, host_id=host_id, state_dir=state_dir) as opened,
        held_by_ray.watching(opened, address, ask=with_ray) as watch,
    ):
        before = take(opened)
        while True:
            time.sleep(interval_s)
            now = take(opened, watch)
            if as_json:
                click.echo(json.dumps(plain(report(before, now))))
            else:
                if not once:
                    click.clear()
                text = screen(store, before, now)
                if not once and sys.stdout.isatty():
                    text = fit(text, *shutil.get_terminal_size())
                click.echo(text)
            if once:
                return
            before = now


def take(store: Store, watch: held_by_ray.Watch | None = None) -> Sample:
    """Look once."""
    tags, held = store.use()
    hosts, processes = store.hosts(), store.processes()
    # Of this host each pin is known, of the others which objects they hold.
    held |= {one.host_id: sum(tag.pins for tag in tags) for one in hosts if one.is_self}
    return Sample(
        time.monotonic(),
        store.stats(),
        hosts,
        held,
        tuple(one for one in processes if not one.is_self),
        tags,
        watch.groups() if watch is not None and held_by_ray.any_of(tags) else None,
    )


def rates(before: Any, now: Any, elapsed_s: float) -> dict[str, float]:
    """Counters per second between two looks; a counter that fell began anew, so it counts from 0."""
    result = {}
    for name in _COUNTERS:
        old = getattr(before, name) if before is not None else 0
        new = getattr(now, name)
        result[f"{name}_per_s"] = (new - old if new >= old else new) / elapsed_s
    return result


def report(before: Sample, now: Sample) -> dict[str, Any]:
    """What --json prints: each host, process and tag with its bytes, objects, pins and rates per second."""
    elapsed_s = max(1e-9, now.monotonic_s - before.monotonic_s)
    old_processes = {(one.index, one.epoch): one for one in before.processes}
    old_tags = {one.tag: one for one in before.tags}
    old_hosts = {one.host_id: one for one in before.hosts}
    return {
        "unix_s": time.time(),
        "interval_s": elapsed_s,
        "store": {**_fields(now.stats), **rates(before.stats, now.stats, elapsed_s)},
        "hosts": [
            {
                **_fields(one),
                "pins": now.pins_of_hosts.get(one.host_id, 0),
                **_growth(old_hosts.get(one.host_id), one, "used_bytes", elapsed_s),
            }
            for one in now.hosts
        ],
        "processes": [
            {**_fields(one), **rates(old_processes.get((one.index, one.epoch)), one, elapsed_s)}
            for one in now.processes
        ],
        "tags": [
            {**_fields(one), **_growth(old_tags.get(one.tag), one, "extent_bytes", elapsed_s)} for one in now.tags
        ],
        "ray": now.ray,
    }


def _growth(before: Any, now: Any, field: str, elapsed_s: float) -> dict[str, float]:
    # Hosts and tags have no counters in the store: what they grew by is what can be told from outside.
    old_objects, old_bytes = (before.objects, getattr(before, field)) if before is not None else (0, 0)
    return {
        "objects_growth_per_s": (now.objects - old_objects) / elapsed_s,
        "bytes_growth_per_s": (getattr(now, field) - old_bytes) / elapsed_s,
    }


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def screen(path: str, before: Sample, now: Sample) -> str:
    """The same for people."""
    seen = report(before, now)
    stats = now.stats
    total = seen["store"]
    share = 100 * stats.used_bytes / max(1, stats.data_bytes)
    headline = (
        f"{path}  {time_text(time.time_ns())}  used {size_text(stats.used_bytes)} of {size_text(stats.data_bytes)} "
        f"({share:.1f} %)  {stats.sealed_objects} objects, {stats.writing_objects} being written, "
        f"{stats.deleted_objects} deleted"
    )
    here = (
        f"this host: {_rate(total['puts_per_s'])} puts/s ({size_text(int(total['put_bytes_per_s']))}/s), "
        f"{_rate(total['gets_per_s'])} gets/s, {_rate(total['deletes_per_s'])} deletes/s, "
        f"{stats.processes} processes, {stats.recovered_processes} recovered"
    )
    parts = [
        headline,
        here,
        "",
        table_text(
            (">HOST", "STATE", ">OBJECTS", ">BYTES", ">PINS", ">BYTES/S", "LAST SEEN"),
            [
                (
                    f"{one['host_id']}{'*' if one['is_self'] else ''}",
                    one["state"].name.lower(),
                    str(one["objects"]),
                    size_text(one["used_bytes"]),
                    str(one["pins"]),
                    _signed(one["bytes_growth_per_s"]),
                    time_text(one["heartbeat_unix_ns"]),
                )
                for one in seen["hosts"]
            ],
        ),
        "",
        table_text(
            (">PID", "PROCESS", ">PINS", ">WRITING", ">PUT/S", ">GET/S", ">DEL/S", ">WRITTEN/S"),
            [
                (
                    str(one["pid"]),
                    (one["command"] or "-") + ("" if one["alive"] else " (dead)"),
                    str(one["pins"]),
                    str(one["writing"]),
                    _rate(one["puts_per_s"]),
                    _rate(one["gets_per_s"]),
                    _rate(one["deletes_per_s"]),
                    f"{size_text(int(one['put_bytes_per_s']))}",
                )
                for one in sorted(seen["processes"], key=_busy, reverse=True)[:_PROCESSES_SHOWN]
            ],
        ),
        "",
        table_text(
            (">TAG", ">OBJECTS", ">BYTES", ">PINS", ">BYTES/S"),
            [
                (
                    str(one["tag"]),
                    str(one["objects"]),
                    size_text(one["extent_bytes"]),
                    str(one["pins"]),
                    _signed(one["bytes_growth_per_s"]),
                )
                for one in seen["tags"][:_TAGS_SHOWN]
            ],
        ),
    ]
    if now.ray is not None:
        parts += ["", held_by_ray.groups_text(now.ray)]
    return "\n".join(parts)


def fit(text: str, columns: int, lines: int) -> str:
    """What goes on a screen of that size: beyond its end the top would scroll away."""
    rows = [row[:columns] for row in text.splitlines()]
    if len(rows) >= lines > 1:
        rows[lines - 2 :] = [f"... {len(rows) - lines + 2} more lines: a higher window shows them"[:columns]]
    return "\n".join(rows)


def _busy(process: dict[str, Any]) -> float:
    return float(process["puts_per_s"] + process["gets_per_s"] + process["deletes_per_s"])


def _rate(per_s: float) -> str:
    return f"{per_s:.0f}" if per_s >= 10 or per_s == 0 else f"{per_s:.1f}"


def _signed(bytes_per_s: float) -> str:
    sign = "-" if bytes_per_s < 0 else "+" if bytes_per_s > 0 else ""
    return sign + size_text(int(abs(bytes_per_s)))
