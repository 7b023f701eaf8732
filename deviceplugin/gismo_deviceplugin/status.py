"""What a node's agent says of a pool: a Report as the status of a GismoNode. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gismo_deviceplugin.pool.member import Report

_MESSAGE_CHARACTERS = 1024
_NOT_LOADED = 32  # as many as the API takes


def status(report: Report, before: Mapping[str, Any], now: str, generation: int) -> dict[str, Any]:
    """The new status. before: the old one, whose conditions keep their time where nothing changed. now: RFC 3339."""
    made: dict[str, Any] = {
        "bootId": report.boot_id,
        "ready": len(report.ready),
        "failing": len([one for one in report.failures if one.namespace]),
        "failures": [
            {"namespace": one.namespace, "reason": one.reason, "message": one.message[:_MESSAGE_CHARACTERS]}
            for one in report.failures
        ],
        "released": sorted(report.released),
        "inUse": [{"namespace": name, "holders": list(who)} for name, who in sorted(report.in_use.items())],
        "notLoaded": [
            {
                "namespace": one.namespace,
                "holder": one.holder,
                "reason": one.reason,
                "message": one.message[:_MESSAGE_CHARACTERS],
            }
            for one in report.not_loaded[:_NOT_LOADED]
        ],
        "conditions": list(_merged(before.get("conditions") or (), _conditions(report), now, generation)),
    }
    known = {"layoutVersion": report.layout_version, "nonce": report.nonce, "capacityBytes": report.capacity_bytes}
    made.update({name: value for name, value in known.items() if value is not None})
    return made


def _conditions(report: Report) -> Iterable[tuple[str, str, str, str]]:
    """Type, status, reason, message."""
    of_pool = [one for one in report.failures if not one.namespace]
    if report.failures:
        first = (of_pool or list(report.failures))[0]
        more = len(report.failures) - 1
        message = f"{first.namespace + ': ' if first.namespace else ''}{first.message}" + (
            f" (and {more} more)" if more else ""
        )
        yield "Ready", "False", first.reason, message
    elif report.waiting:
        yield "Ready", "False", "Waiting", f"not ready yet: {', '.join(report.waiting[:5])}"
    else:
        yield "Ready", "True", "Ready", ""
    if report.same_memory is None:
        yield "SameMemory", "Unknown", "NotProven", "the other nodes have not shown yet that they see this memory"
    elif report.same_memory:
        yield "SameMemory", "True", "Proven", ""
    else:
        yield "SameMemory", "False", "NotTheSameMemory", of_pool[0].message if of_pool else ""


def _merged(
    before: Iterable[Mapping[str, Any]], said: Iterable[tuple[str, str, str, str]], now: str, generation: int
) -> Iterable[dict[str, Any]]:
    old = {one["type"]: one for one in before}
    for kind, value, reason, message in said:
        last = old.get(kind)
        since = last["lastTransitionTime"] if last is not None and last["status"] == value else now
        yield {
            "type": kind,
            "status": value,
            "reason": reason,
            "message": message[: 4 * _MESSAGE_CHARACTERS],
            "lastTransitionTime": since,
            "observedGeneration": generation,
        }
