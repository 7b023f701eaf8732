"""Ray Data's settings, as they are right where blocks lie in one shared memory. docs/ray.md, Ray Data.

Set when Ray Data makes its context, unless the user has set them; GISMO_RAY_DATA=off leaves all as it is.
- Shuffle intermediates are not compressed: they are mapped, not sent, so compressing costs twice and saves nothing.
- The memory that a Dataset may fill with blocks is taken from the pool's size instead of plasma's.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from typing import Any

from gismo_core.ray import session

logger = logging.getLogger("gismo.ray")

# Half of the pool: the rest is for what is being read while the next blocks are made.
_POOL_SHARE = 0.5
_COMPRESSION_FIELDS = ("shuffle_compression", "hash_shuffle_compression")  # as it is called now, and before 2.60
_COMPRESSION_VARIABLES = ("RAY_DATA_SHUFFLE_COMPRESSION", "RAY_DATA_HASH_SHUFFLE_COMPRESSION")
_LIMIT_FIELD = "override_object_store_memory_limit_fraction"


def install() -> None:
    """Ray Data's context module has been imported. Safe to repeat."""
    module = sys.modules.get("ray.data.context")
    if module is None or os.environ.get("GISMO_RAY_DATA", "").lower() == "off":
        return
    original = module.DataContext.get_current
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def get_current() -> Any:
        fresh = module._default_context is None
        context = original()
        if fresh:
            adapt(context)
        return context

    module.DataContext.get_current = staticmethod(get_current)
    if module._default_context is not None:
        adapt(module._default_context)


def connected() -> None:
    """Ray is connected now: what could not be known before can be set."""
    module = sys.modules.get("ray.data.context")
    if module is None or not hasattr(module.DataContext.get_current, "__wrapped__"):
        return
    if module._default_context is not None:
        _limit(module._default_context)


def adapt(context: Any) -> None:
    """Set what the user has not set; says once what that was."""
    if session.current() is None and session.open_store() is None:
        return
    fields = type(context).__dataclass_fields__
    for name in _COMPRESSION_FIELDS:
        if (
            name in fields
            and getattr(context, name) == fields[name].default
            and not any(variable in os.environ for variable in _COMPRESSION_VARIABLES)
        ):
            setattr(context, name, "none")
            session.Notes.once("compression", "Ray Data: %s=none (blocks are mapped, not sent)", name)
            break
    _limit(context)


def _limit(context: Any) -> None:
    here = session.current()
    if here is None or getattr(context, _LIMIT_FIELD, 0) is not None:
        return
    plasma_bytes = float(here.internals.ray.cluster_resources().get("object_store_memory", 0))
    if plasma_bytes <= 0:
        return
    fraction = _POOL_SHARE * here.store.info.data_bytes / plasma_bytes
    setattr(context, _LIMIT_FIELD, fraction)
    session.Notes.once(
        "limit",
        "Ray Data: %s=%.2f, which is half of the pool (GISMO_RAY_DATA=off leaves Ray Data alone)",
        _LIMIT_FIELD,
        fraction,
    )
