"""Conditions as Kubernetes has them: a status, a reason for programs, a message for people, and when it last changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gismo_operator.api.v1alpha1 import Condition, ConditionStatus

READY = "Ready"
PROGRESSING = "Progressing"
DEGRADED = "Degraded"
IN_USE = "InUse"
NOT_LOADED = "NotLoaded"
SAME_MEMORY = "SameMemory"

_MESSAGE_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class Said:
    """A condition as a decision makes it: without the time, which is the writer's."""

    type: str
    is_true: bool | None  # None: unknown
    reason: str
    message: str = ""


def merged(old: Sequence[Condition], said: Iterable[Said], now: str, generation: int) -> list[Condition]:
    """The new conditions; the time of one changes only with its status. now: RFC 3339. Others' conditions stay."""
    before = {one.type: one for one in old}
    for one in said:
        status = {True: ConditionStatus.TRUE, False: ConditionStatus.FALSE, None: ConditionStatus.UNKNOWN}[one.is_true]
        last = before.get(one.type)
        before[one.type] = Condition(
            type=one.type,
            status=status,
            reason=one.reason,
            message=one.message[:_MESSAGE_CHARACTERS],
            last_transition_time=last.last_transition_time if last is not None and last.status is status else now,
            observed_generation=generation,
        )
    return list(before.values())


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names for a message: "a, b and 3 more"."""
    head = ", ".join(names[:most])
    return head if len(names) <= most else f"{head} and {len(names) - most} more"
