"""Act: the store is checked as it is after all that, then emptied."""

from __future__ import annotations

import contextlib
import time

from gismo_core import ObjectGone, ObjectState, Severity
from gismo_core.cli.output import size_text
from gismo_core.demo.fleet import Fleet
from gismo_core.demo.stage import Stage, count, ms, wait_until

_TABLES_SHARE = 0.1  # of the store, at most: they grow by what is deleted and not yet free, and do not shrink


def play(stage: Stage, fleet: Fleet, empty_bytes: int) -> None:
    """empty_bytes: in use when nothing had been put."""
    stage.screen.act("fsck --verify, then delete all")
    _check(stage, fleet, "fsck", verify=True)
    drained = fleet.tell("drain", [host.writer for host in fleet.hosts if host.writer in fleet.workers])
    begin_s = time.monotonic()
    store = fleet.hosts[-1].store  # the dead one's objects are left: another host deletes them
    left = [one.handle for one in store.objects() if one.state == ObjectState.SEALED]
    for handle in left:
        with contextlib.suppress(ObjectGone):
            store.delete(handle)
    # objects() lists every state, so what is in use when it lists none are the hosts' tables of names.
    freed_s = wait_until(lambda: next(store.objects(), None) is None, begin_s)
    stats = store.stats()
    tables_bytes = stats.used_bytes - empty_bytes
    stage.note(
        "emptied",
        deleted_objects=sum(one["deleted"] for one in drained) + len(left),
        deleted_from_another_host=len(left),
        freed_s=freed_s,
        name_tables_bytes=tables_bytes,
        largest_free_bytes=stats.largest_free_bytes,
    )
    stage.expect(
        "with all deleted, everything is free again",
        freed_s is not None and tables_bytes <= stats.data_bytes * _TABLES_SHARE,
        f"{ms(freed_s)} after the last delete ({count(len(left))} of the dead writer's, from another host); "
        f"{size_text(tables_bytes)} stay in use, the tables of names",
    )
    _check(stage, fleet, "fsck_empty", verify=False)


def _check(stage: Stage, fleet: Fleet, act: str, *, verify: bool) -> None:
    """Of the whole store by each host, for leaks are told by the host that has them; payloads by the first."""
    begin_s = time.monotonic()
    reports = [host.store.fsck(verify=verify and host is fleet.hosts[0]) for host in fleet.hosts]
    seconds = time.monotonic() - begin_s
    leaked = sum(one.leaked_bytes for one in reports)
    faults = [
        f"{finding.code}: {finding.message}"
        for one in reports
        for finding in one.findings
        if finding.severity != Severity.NOTE
    ]
    clean = all(one.ok and not one.errors and not one.repaired for one in reports)
    verified = reports[0].payloads_verified
    stage.note(
        act,
        clean=clean,
        objects=reports[0].objects,
        payloads_verified=verified,
        leaked_bytes=leaked,
        findings=faults,
        seconds=seconds,
    )
    found = f"{count(reports[0].objects)} objects, {count(leaked)} B leaked"
    if verify:
        found += f", {count(verified)} payloads right, {ms(seconds)}"
    stage.expect(
        "fsck --verify on every host: clean, nothing leaked" if verify else "fsck of the empty store: clean",
        clean and leaked == 0 and (verified > 0 or not verify),
        "; ".join([found, *faults[:3]]),
    )
    if verify:
        stage.conclude("fsck --verify", "clean, 0 B leaked" if clean and not leaked else "NOT clean")
