"""Finding the keeper, making it where there is none, and having references made by it; the actor itself is in keeper.py.

Apart from that, because each worker needs this and only one process of a cluster that.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from gismo_core.ray import compat

if TYPE_CHECKING:
    from gismo_core.ray.session import Session

NAMESPACE = "gismo"
NAME = "gismo-keeper-"  # what the names of all keepers begin with


def name_of(store_uuid: object) -> str:
    """The name of the keeper's actor."""
    return f"{NAME}{store_uuid}"


def find_or_make(session: Session) -> Any:
    """The handle of the cluster's keeper. UnsupportedRay where there is none, and this Ray cannot be scanned."""
    import ray

    name = name_of(session.store.store_uuid)
    with contextlib.suppress(ValueError):
        return ray.get_actor(name, namespace=NAMESPACE)
    compat.check_tables()  # whoever finds a keeper need not: all nodes of a cluster have the same Ray
    from gismo_core.ray.keeper import Keeper

    # Here, where there is a pool. If this node goes, so does the keeper, and whoever misses it makes another.
    return detached(ray, Keeper, name, session.identity.node.hex()).remote()


def detached(ray: Any, actor: type[Any], name: str, node: str, **options: Any) -> Any:
    """What makes an actor of Gismo's own on that node (hex ID), or finds the one of that name: to call `.remote()` of."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return ray.remote(actor).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        **options,
    )


def references(keeper: Any, count: int) -> list[Any]:
    """So many ObjectRefs that belong to the calling process, to be counted and never to be read.

    They are the returns of one call, which costs microseconds each; a ray.put, even of nothing, costs half a millisecond.
    """
    made = keeper.nothing.options(num_returns=count).remote(count)
    return [made] if count == 1 else list(made)
