"""What a node's agent says of a pool: a Report as the status of a GismoNode. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gismo_deviceplugin.pool.member import Report
from gismo_kube.occurrence import Occurrence

_MESSAGE_CHARACTERS = 1024
_STORES = 128  # as many as the API takes of a pool
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
        "released": sorted(report.released)[: 2 * _STORES],
        "strangers": sorted(report.strangers),
        "refused": sorted(report.refused)[:_STORES],
        "quarantined": [
            {
                "namespace": one.namespace,
                "storeUUID": one.store_uuid,
                "offsetBytes": one.offset_bytes,
                "sizeBytes": one.size_bytes,
                "holders": list(one.holders),
            }
            for one in sorted(report.quarantined, key=lambda each: each.store_uuid)[:_STORES]
        ],
        "silent": [
            {
                "node": one.node,
                "hostId": one.host_id,
                "bootId": one.boot_id,
                "standing": one.standing,
                "active": one.active,
                "fenced": one.fenced,
                "released": one.released,
                "message": one.message[:_MESSAGE_CHARACTERS],
            }
            for one in report.silent
        ],
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
    known = {
        "layoutVersion": report.layout_version,
        "nonce": report.nonce,
        "capacityBytes": report.capacity_bytes,
        "takenHostId": report.taken_host_id,
    }
    made.update({name: value for name, value in known.items() if value is not None})
    return made


def differs(there: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    """Is what is there another than what was made? A list whose last item server-side apply took away is not there any more."""
    return any(there.get(key, [] if value == [] else None) != value for key, value in made.items())


def occurrences(node: Mapping[str, Any], before: Mapping[str, Any], made: Mapping[str, Any]) -> Iterable[Occurrence]:
    """What is told as an event when a GismoNode's status, which was `before`, is now `made`: what fails, and its end.

    Waiting for other nodes is not told. What was so before stands in the status, so that an agent that starts anew tells
    nothing twice.
    """
    was, now = (
        next((one for one in status.get("conditions") or () if one["type"] == "Ready"), None)
        for status in (before, made)
    )
    if now is None or (was is not None and (was["status"], was["reason"]) == (now["status"], now["reason"])):
        return
    is_ready = now["status"] == "True"
    if is_ready or now["reason"] != "Waiting":
        note = f"{made['ready']} Gismo namespaces of the pool are ready on this node" if is_ready else now["message"]
        metadata = node["metadata"]
        yield Occurrence("GismoNode", metadata["name"], metadata["uid"], not is_ready, now["reason"], "Prepare", note)


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
        yield "SameMemory", "Unknown", "NotProven", "the writer node has not shown yet that it sees this memory"
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
