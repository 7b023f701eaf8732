"""What is told as an event of Kubernetes. Pure: whoever decides what is told knows no API server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something that happened to one of our objects, which are all cluster-scoped."""

    kind: str
    name: str
    uid: str
    is_warning: bool
    reason: str  # one word, for programs
    action: str  # what was being done, one word; the API wants one
    note: str  # for people: what happened and what to do
