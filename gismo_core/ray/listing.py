"""The records that are in a store, by cluster."""

from __future__ import annotations

import logging
from collections.abc import Collection

import gismo_core
from gismo_core import errors
from gismo_core.ray import record
from gismo_core.ray.index import Index
from gismo_core.ray.record import Header

logger = logging.getLogger("gismo.ray")


class Listing:
    """Lists them again and again, and reads the header of each only once."""

    def __init__(self, store: gismo_core.Store, cluster: bytes) -> None:
        self._store = store
        self._follower = store.follow(tag=record.TAG, mask=record.TAG_MASK)
        self._cluster = cluster
        self._own = Index()
        self._others: dict[bytes, bytes | None] = {}  # raw handle → cluster; None: damaged

    def own(self) -> tuple[Index, frozenset[bytes]]:
        """(the cluster's records, those of them that a process of this host pins), as of now.

        The index is this object's own, and good until the next call.
        """
        own, others = self._own, self._others
        own.generation += 1
        change = self._follower.look()
        own.remove(raw for raw in change.gone if raw in own)
        for raw in change.gone:
            others.pop(raw, None)
        try:
            heads = self._store.peek_many(change.new, record.HEADER.size)
            for raw, head in zip(change.new, heads, strict=True):
                header = header_of(self._store, raw, head)
                if header is not None and header.cluster == self._cluster:
                    own.add(raw, header)
                else:
                    others[raw] = None if header is None else header.cluster
        except BaseException:
            # What was not read is told again by the next look: a record that nobody lists is never freed.
            self._follower.forget(raw for raw in change.new if raw not in own and raw not in others)
            raise
        return own, frozenset(raw for raw in change.pinned if raw in own)

    def forget(self, deleted: Collection[bytes]) -> None:
        """These records of the cluster were deleted just now; were one there still, own() would list it as a new one."""
        self._own.remove(deleted)
        self._follower.forget(deleted)

    def nodes(self) -> tuple[bytes, ...]:
        """The nodes that wrote what own() listed last; from any thread."""
        return tuple({header.node for header in self._own.headers()})

    def count(self) -> int:
        """How many the cluster has now. Reads no header: what is new counts as its own until the next own()."""
        return max(0, self._store.count_sealed(tag=record.TAG, mask=record.TAG_MASK) - len(self._others))

    def others(self) -> dict[bytes, bytes]:
        """The records of other clusters, as of now: raw handle → cluster ID."""
        self.own()
        return {raw: cluster for raw, cluster in self._others.items() if cluster is not None}


def read_header(store: gismo_core.Store, raw_handle: bytes) -> Header | None:
    """What a record says of itself; None if it is gone, or no record."""
    return header_of(store, raw_handle, store.peek_many([raw_handle], record.HEADER.size)[0])


def header_of(store: gismo_core.Store, raw_handle: bytes, head: bytes | None) -> Header | None:
    """The same of its first bytes, which peek_many() gave; reads on where it names foreign extents."""
    if head is None:
        logger.debug("Gismo: %s is gone, or no record", record.handle_of(raw_handle))
        return None
    try:
        count = record.foreign_count(head)
        if count and head[:8] == record.MAGIC:
            head = store.peek(record.handle_of(raw_handle), record.HEADER.size + count * record.HANDLE_BYTES)
        return Header.unpack(head)
    except (errors.ObjectGone, errors.InvalidArgument, errors.CorruptStore, errors.MediaError) as error:
        logger.debug("Gismo: %s is no record: %s", record.handle_of(raw_handle), error)
        return None
