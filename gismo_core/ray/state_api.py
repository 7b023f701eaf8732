"""`ray list objects` and `ray.util.state.list_objects()`: what stock Ray would list, without Gismo's own references.

Tokens are objects to Ray, and there are many: each worker holds some ready, so that a list of a hundred entries, as
Ray gives it by default, could be full of them. They are left out, and so told: they are returns of a keeper's, whose
actor ID each of their IDs bears.

Ray leaves out each entry of a reference table that has no reference of that process's own, such as an object that only
others refer to, but counts it, and then says that the list is cut short. In stock Ray that is rare; here each token of
a return is one, in the keeper's table. So none of those is counted either. Runs where Ray's state is put together, that
is in the dashboard.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Set
from typing import Any

from gismo_core.ray import keeping
from gismo_core.ray.record import TASK_ID_BYTES
from gismo_core.ray.scan import counts

logger = logging.getLogger("gismo.ray")

_MODULE = "ray.util.state.state_manager"
_ACTOR_AT = 8  # where in the ID of what an actor's method returned the actor's stands; up to the end of the TaskID
_TIMEOUT_S = 10.0


def install() -> None:
    """The module has been imported. Safe to repeat; in a Ray where it differs the list stays as Ray makes it."""
    client = getattr(sys.modules.get(_MODULE), "StateDataSourceClient", None)
    original = getattr(client, "get_object_info", None)
    if client is None or original is None or hasattr(original, "_gismo"):
        return

    @functools.wraps(original)
    async def get_object_info(self: Any, *arguments: Any, **options: Any) -> Any:
        reply = await original(self, *arguments, **options)
        # After it, so that a keeper whose tokens are in the reply is known.
        return only_users(reply, await keepers(self))

    get_object_info._gismo = True  # type: ignore[attr-defined]
    client.get_object_info = get_object_info


async def keepers(client: Any) -> Set[bytes]:
    """The actor IDs of the keepers of the cluster that this StateDataSourceClient asks; none where that fails."""
    try:
        from ray.core.generated import gcs_service_pb2

        stub = client._gcs_actor_info_stub
        request = gcs_service_pb2.ListNamedActorsRequest(all_namespaces=False, ray_namespace=keeping.NAMESPACE)
        named = await stub.ListNamedActors(request, timeout=_TIMEOUT_S)
        found = set()
        for one in named.named_actors_list:
            if one.name.startswith(keeping.NAME):
                asked = gcs_service_pb2.GetNamedActorInfoRequest(name=one.name, ray_namespace=keeping.NAMESPACE)
                found.add((await stub.GetNamedActorInfo(asked, timeout=_TIMEOUT_S)).actor_table_data.actor_id)
        return found
    except Exception as error:  # noqa: BLE001 - grpc's, or an unknown Ray's: a longer list is better than none
        logger.debug("Gismo: GCS does not say which actors are keepers: %s", error)
        return frozenset()


def only_users(reply: Any, keepers: Set[bytes]) -> Any:
    """A raylet's GetObjectsInfoReply (or what came instead of it) without what keepers made and without the entries that
    Ray would leave out, counted so."""
    if hasattr(reply, "core_workers_stats") and hasattr(reply, "total"):
        for stats in reply.core_workers_stats:
            kept = [
                row
                for row in stats.object_refs
                if (row.pinned_in_memory or counts(row)) and row.object_id[_ACTOR_AT:TASK_ID_BYTES] not in keepers
            ]
            left_out = len(stats.object_refs) - len(kept)
            if left_out:
                del stats.object_refs[:]
                stats.object_refs.extend(kept)
                stats.objects_total -= left_out
                reply.total -= left_out
    return reply
