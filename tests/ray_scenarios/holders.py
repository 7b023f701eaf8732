"""For a leak: which records are left, and in whose table their tokens, or other objects of their tasks, still stand."""

from __future__ import annotations

from typing import Any

from gismo_core import Store
from gismo_core.ray import answer, record, scan


def explain(ray: Any, store: Store) -> list[str]:
    """One line for each record that is left, and one for each table entry that may keep it."""
    headers = {}
    lines = []
    for one in store.sealed(tag=record.TAG, mask=record.TAG_MASK):
        header = record.Header.unpack(store.peek(one.handle, record.HEADER.size))
        headers[header.token] = header
        lines.append(
            f"{header.kind.name} by {header.name or 'a driver'} in {header.worker.hex()[:8]}, task {header.task.hex()}, "
            f"token {header.token.hex()}, {one.pins_here} pins here"
        )
    tasks = {header.task for header in headers.values()}
    scanner = scan.Scanner(ray)
    replies = scanner.ask()
    for reply in [] if isinstance(replies, scan.Incomplete) else replies.values():
        for stats in reply.core_workers_stats:
            entries = [answer.entry(row) for row in stats.object_refs]
            outer = {one for entry in entries if entry.object_id in headers for one in entry.contained_in_owned}
            lines += (
                f"  {entry.object_id.hex()} in {stats.worker_id.hex()[:8]} (process {stats.pid}): local "
                f"{entry.local_ref_count}, submitted {entry.submitted_task_ref_count}, in owned "
                f"{[one.hex() for one in entry.contained_in_owned]}, task {entry.task_status}, {entry.call_site}"
                for entry in entries
                if entry.object_id in headers
                or entry.object_id in outer
                or entry.object_id[: record.TASK_ID_BYTES] in tasks
            )
    scanner.close()
    return lines
