"""The records that are in a store, by cluster."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import gismo_core
from gismo_core import errors
from gismo_core.ray import record
from gismo_core.ray.record import Header

logger = logging.getLogger("gismo.ray")


class Listing:
    """Lists them again and again, and reads the header of each only once."""

    def __init__(self, store: gismo_core.Store, cluster: bytes) -> None:
        self._store = store
        self._cluster = cluster
        self._own: dict[bytes, Header] = {}
        self._others: dict[bytes, bytes | None] = {}  # raw handle → cluster; None: damaged

    def own(self) -> tuple[Mapping[bytes, Header], set[bytes]]:
        """(the cluster's records by raw handle, those of them that a process of this host pins), as of now.

        The mapping is this object's own, and good until the next call.
        """
        listed = self._store.sealed(tag=record.TAG, mask=record.TAG_MASK)
        now = {one.raw_handle for one in listed}
        for gone in self._own.keys() - now:
            del self._own[gone]
        for gone in self._others.keys() - now:
            del self._others[gone]
        for raw in now - self._own.keys() - self._others.keys():
            header = read_header(self._store, record.handle_of(raw))
            if header is not None and header.cluster == self._cluster:
                self._own[raw] = header
            else:
                self._others[raw] = None if header is None else header.cluster
        return self._own, {one.raw_handle for one in listed if one.pins_here and one.raw_handle in self._own}

    def nodes(self) -> tuple[bytes, ...]:
        """The nodes that wrote what own() listed last; from any thread."""
        return tuple({header.node for header in tuple(self._own.values())})

    def count(self) -> int:
        """How many the cluster has now. Reads no header: what is new counts as its own until the next own()."""
        others = self._others
        return sum(one.raw_handle not in others for one in self._store.sealed(tag=record.TAG, mask=record.TAG_MASK))

    def others(self) -> dict[bytes, bytes]:
        """The records of other clusters, as of now: raw handle → cluster ID."""
        self.own()
        return {raw: cluster for raw, cluster in self._others.items() if cluster is not None}


def read_header(store: gismo_core.Store, handle: gismo_core.Handle) -> Header | None:
    """What a record says of itself; None if it is gone, or no record."""
    try:
        head = store.peek(handle, record.HEADER.size)
        count = record.foreign_count(head)
        if count and head[:8] == record.MAGIC:
            head = store.peek(handle, record.HEADER.size + count * record.HANDLE_BYTES)
        return Header.unpack(head)
    except (errors.ObjectGone, errors.InvalidArgument, errors.CorruptStore) as error:
        logger.debug("Gismo: %s is no record: %s", handle, error)
        return None
