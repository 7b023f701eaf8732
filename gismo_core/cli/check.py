"""gismo fsck: is the store sound, and what is held, since when and by whom."""

from __future__ import annotations

import click

from gismo_core.cli import exits, held_by_ray
from gismo_core.cli.options import (
    address_option,
    host_options,
    json_option,
    open_store,
    open_to_look,
    or_none,
    store_argument,
)
from gismo_core.cli.output import age_text, progress, show_json, show_table, size_text, time_text
from gismo_core.records import Finding, FsckReport, ObjectInfo, ObjectState, ProcessInfo
from gismo_core.store import Store

_HELD_SHOWN = 1000


@click.command("fsck", epilog=exits.HELP)
@store_argument
@click.option("--verify", is_flag=True, help="Also check every payload that has one against its CRC32C.")
@click.option("--repair", is_flag=True, help="Mend what can be mended; takes part in the store, so it writes.")
@click.option("--ray", "with_ray", is_flag=True, help="Also list what Ray keeps, and who holds it.")
@address_option
@host_options
@json_option
def fsck_command(
    store: str,
    verify: bool,
    repair: bool,
    with_ray: bool,
    address: str | None,
    host_id: int | None,
    state_dir: str | None,
    as_json: bool,
) -> int:
    """Check a store and explain what is held.

    Ends with 5 if errors are left. Safe on a store in use: what changes meanwhile is looked at again. With --ray each
    record is shown with its job, task or actor, node and age; where a cluster answers, also with what holds it.
    """
    opening = open_store if repair else open_to_look
    with opening(store, host_id=host_id, state_dir=state_dir) as opened:
        used_bytes = getattr(or_none(opened.stats), "used_bytes", None) if verify else None
        with progress("verifying", used_bytes, wanted=verify and not as_json) as update:
            report = opened.fsck(
                verify=verify, repair=repair, on_finding=None if as_json else _show_finding, progress=update
            )
        processes: tuple[ProcessInfo, ...] = or_none(opened.processes) or ()
        held = _held(opened)
        of_ray = held_by_ray.look(opened, address) if with_ray else None
    if as_json:
        more = {} if of_ray is None else {"ray": of_ray.plain()}
        show_json({"report": report, "held": held, "processes": processes, **more})
    else:
        _show_held(held, processes)
        if of_ray is not None:
            held_by_ray.show(of_ray)
        click.echo(_verdict(report, verify, repair))
    return exits.OK if report.ok else exits.CORRUPT


def _show_finding(finding: Finding) -> None:
    where = "" if finding.slot >= 2**63 else f" (slot {finding.slot})"
    click.echo(f"{finding.severity.name.lower():8} {finding.code}: {finding.message}{where}")


def _held(store: Store) -> list[ObjectInfo]:
    """What keeps room: objects being written, and what is or lately was pinned on any host."""
    held: list[ObjectInfo] = []
    for one in store.objects():
        # A deleted object without pins holds nothing: its room is handed out when it is needed.
        if one.state == ObjectState.WRITING or one.pins_here or one.pinned_hosts:
            held.append(one)
            if len(held) == _HELD_SHOWN:
                break
    return held


def _show_held(held: list[ObjectInfo], processes: tuple[ProcessInfo, ...]) -> None:
    if held:
        by_index = {one.index: one for one in processes}
        show_table(
            ("held", ">size", ">tag", "since", "by", "name", "handle"),
            [
                (
                    one.state.name.lower() if one.state != ObjectState.SEALED else "pinned",
                    size_text(one.extent_bytes),
                    str(one.tag),
                    f"{time_text(one.created_unix_ns)} ({age_text(one.created_unix_ns)})",
                    _holder(one, by_index),
                    one.name or "-",
                    str(one.handle),
                )
                for one in held
            ],
        )
    if processes:
        show_table(
            (">pid", "process", ">pins", ">writing", ">chunks", "since", "alive"),
            [
                (
                    str(one.pid),
                    one.command or "-",
                    str(one.pins),
                    str(one.writing),
                    str(one.chunks),
                    time_text(one.joined_unix_ns),
                    "yes" if one.alive else "no: being cleaned up after",
                )
                for one in processes
            ],
        )


def _holder(one: ObjectInfo, processes: dict[int, ProcessInfo]) -> str:
    if one.state == ObjectState.WRITING:
        writer = processes.get(one.creator)
        return f"host {one.handle.lane}, " + (f"pid {writer.pid}" if writer else f"process {one.creator}")
    hosts = ", ".join(f"host {host}" for host in one.pinned_hosts) or f"host {one.owner_lane}"
    return hosts + (f" ({one.pins_here} pins here)" if one.pins_here else "")


def _verdict(report: FsckReport, verify: bool, repair: bool) -> str:
    checked = f", {report.payloads_verified} payloads verified" if verify else ""
    state = "clean" if report.ok and not report.errors else f"{report.errors} errors"
    advice = ""
    if not report.ok and repair:
        advice = "; what is left cannot be mended: save what can be read (`gismo get`), then `gismo format --force`"
    elif not report.ok:
        advice = "; `gismo fsck --repair` mends what can be mended"
    return (
        f"{state}: {report.objects} objects{checked}, {report.warnings} warnings, {report.repaired} repaired, "
        f"{size_text(report.leaked_bytes)} leaked{advice}"
    )
