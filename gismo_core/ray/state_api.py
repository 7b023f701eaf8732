"""`ray list objects` and `ray.util.state.list_objects()`, which a return in the store would make call itself incomplete.

Ray leaves out each entry of a reference table that has no reference of that process's own, such as an object that only
others refer to, but counts it, and then says that the list is cut short. In stock Ray that is rare; here each token of
a return is one, in the keeper's table. So they are not counted either. Runs where Ray's state is put together, that is
in the dashboard.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from gismo_core.ray.scan import counts

_MODULE = "ray.util.state.state_manager"


def install() -> None:
    """The module has been imported. Safe to repeat; in a Ray where it differs the list stays as Ray makes it."""
    client = getattr(sys.modules.get(_MODULE), "StateDataSourceClient", None)
    original = getattr(client, "get_object_info", None)
    if client is None or original is None or hasattr(original, "_gismo"):
        return

    @functools.wraps(original)
    async def get_object_info(*arguments: Any, **options: Any) -> Any:
        return only_referred(await original(*arguments, **options))

    get_object_info._gismo = True  # type: ignore[attr-defined]
    client.get_object_info = get_object_info


def only_referred(reply: Any) -> Any:
    """A raylet's GetObjectsInfoReply (or what came instead of it) without the entries that Ray would leave out, counted so."""
    if hasattr(reply, "core_workers_stats") and hasattr(reply, "total"):
        for stats in reply.core_workers_stats:
            kept = [row for row in stats.object_refs if row.pinned_in_memory or counts(row)]
            left_out = len(stats.object_refs) - len(kept)
            if left_out:
                del stats.object_refs[:]
                stats.object_refs.extend(kept)
                stats.objects_total -= left_out
                reply.total -= left_out
    return reply
