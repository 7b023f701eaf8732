"""Which sealed objects are new and which are gone since one looked last: for those who look at many, again and again."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from gismo_core import records
from gismo_core.records import BriefChange


class Change(NamedTuple):
    """What one look found; raw handles."""

    new: list[bytes]
    gone: list[bytes]
    pinned: list[bytes]  # of all that are there: those that processes of this host pin


class Follower:
    """Made by Store.follow(). The first look finds all to be new. Costs about 0.05 us for each object there is, and a
    microsecond for each that changed."""

    def __init__(self, slots: int, parts: Callable[[Any], Iterator[memoryview]]) -> None:
        self._parts = parts
        self._seen = (ctypes.c_uint64 * slots)()  # the core's: which generation was seen in which slot
        self._seen_is_right = True
        self._known: dict[int, bytes] = {}  # slot → raw handle: the same, for us

    def look(self) -> Change:
        """As of now: what was sealed before the call and is not deleted is not missed."""
        if not self._seen_is_right:
            ctypes.memset(self._seen, 0, ctypes.sizeof(self._seen))
        was_right, self._seen_is_right = self._seen_is_right, False
        known = self._known
        # Nothing of ours changes before all parts are there: after an error the next look tells what this one found.
        gone_slots: list[int] = []
        added: dict[int, bytes] = {}
        pinned: list[bytes] = []
        for part in self._parts(self._seen):
            for change, slot, is_pinned, raw in records.brief_changes(part):
                if change == BriefChange.GONE:
                    gone_slots.append(slot)
                    continue
                if change == BriefChange.NEW:
                    added[slot] = raw
                if is_pinned:
                    pinned.append(raw)
        if not was_right:  # everything was new to the core
            gone_slots = [slot for slot, raw in known.items() if added.get(slot) != raw]
            added = {slot: raw for slot, raw in added.items() if known.get(slot) != raw}
        gone = [known.pop(slot) for slot in gone_slots]
        known.update(added)
        self._seen_is_right = True
        return Change(list(added.values()), gone, pinned)

    def forget(self, deleted: Iterable[bytes]) -> None:
        """As if these were never seen: where one is there still, it is new again."""
        for raw in deleted:
            slot = records.slot_of_handle(raw)
            if self._known.get(slot) == raw:
                del self._known[slot]
                self._seen[slot] = 0
