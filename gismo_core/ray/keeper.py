"""The keeper: a detached actor that owns the tokens of returns, scans the cluster, and frees records.

One per Ray cluster and store, made by the first process that needs it, restarted by Ray when it dies. It holds nothing
that cannot be lost: the records are in the store, the truth about references is in the tables that it scans.
"""

from __future__ import annotations

import dataclasses
import gc
from typing import Any

from gismo_core.ray import compat, metrics
from gismo_core.ray.bridge import Bridges
from gismo_core.ray.collecting import Collecting
from gismo_core.ray.keeping import references

_GC_OBJECTS = 100_000


class Keeper:
    """The actor. `ray.remote` is applied where it is made, so that importing this needs no Ray."""

    def __init__(self) -> None:
        import ray

        from gismo_core.ray import session

        compat.check_tables()  # whoever made it has looked, but a keeper that cannot scan must not begin
        here = session.current()
        if here is None:
            raise RuntimeError(
                f"the Gismo keeper was started where the store cannot be opened: {session.failure()}; it needs the "
                "pool and GISMO_STORE on the node of the process that made it"
            )
        here.is_keeper = True
        self._session = here
        self._myself = ray.get_runtime_context().current_actor
        self._leased = 0
        self._collecting = Collecting(
            ray, here.store, here.identity.cluster, here.identity.worker, here.core_worker.global_gc
        )
        metrics.Reporter(self._collecting).start()
        # A scan makes tens of thousands of short-lived objects beside as many that stay for minutes, none of them in a
        # cycle: by its defaults the collector of cycles would walk over all of them several times a scan.
        gc.freeze()
        gc.set_threshold(_GC_OBJECTS, 10, 100)
        self._bridges = Bridges(ray, here.store.info.store_uuid)

    def lease(self, count: int) -> list[Any]:
        """So many tokens, made now; once the reply is written, they are the caller's alone."""
        self._leased += count
        tokens = references(self._myself, count)
        for token in tokens:
            self._session.core_worker.add_object_out_of_scope_callback(token, self._on_out_of_scope)
        return tokens

    def nothing(self, count: int) -> Any:
        """So many times None, see references()."""
        return None if count == 1 else (None,) * count

    def poke(self, delivered: list[bytes]) -> None:
        """Tokens went out of scope in another process, and it let go of returns that it had read (raw handles)."""
        self._collecting.propose(delivered)

    def full(self) -> None:
        """The pool is full: look at all records now, whatever the budget says."""
        self._collecting.pool_is_full()

    def bridges(self, died: list[bytes]) -> list[Any]:
        """The actors that serve processes without the pool; made anew where one is of these actor ids."""
        nodes = [self._session.identity.node, *self._collecting.nodes()]
        handles: list[Any] = self._bridges.handles(nodes, died)
        return handles

    def status(self) -> dict[str, Any]:
        """Figures for people and tests."""
        return {
            **dataclasses.asdict(self._collecting.figures),
            "leased": self._leased,
            "node": self._session.identity.node.hex(),
        }

    def _on_out_of_scope(self, _: bytes) -> None:
        self._collecting.propose()
