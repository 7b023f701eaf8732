"""What a node's part in a pool asks of the pool's memory, whatever it is made of: emulated.py, dax/pool.py."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import gismo_core
from gismo_deviceplugin.pool.label import LabelRange
from gismo_deviceplugin.pool.records import Memory

# Pods of this node that hold a share of a store, by its UUID.
Holders = Callable[[str], "tuple[str, ...]"]
Progress = Callable[[int, int], object]  # bytes done, of so many


class Unfit(RuntimeError):
    """This memory cannot be a pool, or this range cannot be made in it: in words that say what to do."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason  # in one word for programs; None: what the one who asked calls it


class NotThere(RuntimeError):
    """The store of a range is not there (yet): the writer node has to format it."""


class Ends(Memory, Protocol):
    """The two ends of a memory, where the pool label is."""

    def close(self) -> None:
        """No access after it."""


class Medium(Protocol):
    """A pool's memory as one node has it. Each call looks at what is there now, and may be cut off and repeated."""

    one_kernel: bool  # nodes that share it run on one kernel
    is_resizable: bool  # its size is a figure of the GismoPool alone
    is_volatile: bool  # it forgets its stores by itself (a reboot), so that one that is gone is formatted anew

    @property
    def capacity_bytes(self) -> int:
        """What can be handed out, the pool label not counted. Known after check()."""

    def check(self) -> None:
        """Can this be a pool? Unfit, if not. The label's ends can be opened afterwards."""

    def open_label(self) -> Ends:
        """The label's memory; empty where there was none."""

    def label_key(self) -> str:
        """What tells this memory from any other in this boot of the node, for as long as it is mounted, or its region is there."""

    def path(self, store_uuid: str) -> Path:
        """Of a store, on this node: a file, or a character device."""

    def check_blank(self) -> None:
        """Before a label is formatted: does the memory hold nothing else? Unfit, if it does."""

    def users(self, store_uuid: str) -> tuple[str, ...]:
        """Processes of this node that use a store, also without a share: for people."""

    def carve(
        self, ranges: Iterable[LabelRange], coherence: str, progress: Progress | None = None
    ) -> Mapping[str, Unfit]:
        """This node's end of these ranges can be opened afterwards; of those that cannot, by store UUID, why."""

    def drop_all_but(self, stores: frozenset[str], holders: Holders) -> None:
        """This node's ends of stores that no layout and no API knows any more go, unless somebody uses them."""

    def verify(self, one: LabelRange, coherence: str) -> None:
        """Is the store of this range there, whole and no other? NotThere, or Unfit where what is there is something else."""

    def format(self, one: LabelRange, coherence: str, progress: Progress | None = None) -> None:
        """By the writer node: make the store of this range where it is not there."""

    def release(self, one: LabelRange, coherence: str, progress: Progress | None = None) -> None:
        """This node's end of a range that nobody here uses goes; Unfit where somebody does."""

    def zero(self, one: LabelRange, progress: Progress | None = None) -> None:
        """By the writer node, when all others have released it: nothing of its bytes is left, and no end of it here."""


def format_store(
    path: Path, one: LabelRange, coherence: str, progress: Progress | None = None, *, is_device: bool
) -> None:
    """Make the store of a range. Over what lies there where it is a device, whose memory is all there; else a new file."""
    try:
        gismo_core.format(
            path,
            size=one.size_bytes,
            max_hosts=64,
            coherence=coherence,
            mode=0o666,  # who may reach it is decided by who has it: a container gets this alone
            force=is_device,
            populate=not is_device,
            progress=progress,
            store_uuid=uuid.UUID(one.store_uuid),
        )
    except gismo_core.GismoError as error:
        raise Unfit(f"the store of {one.namespace} cannot be formatted: {error}") from error


def check_coherence(one: LabelRange, info: gismo_core.StoreInfo, coherence: str) -> None:
    """Unfit, if its store is for another one."""
    if info.coherence != coherence:
        raise Unfit(f"the store of {one.namespace} was formatted for {info.coherence} coherence, not {coherence}")
