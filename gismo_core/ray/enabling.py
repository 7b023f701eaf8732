"""enable(): for notebooks, where GISMO_STORE in the environment would come too late."""

from __future__ import annotations

import os
from typing import Any

from gismo_core.errors import GismoError


class TooLate(GismoError):
    """Ray is connected already, so its workers cannot be told any more; the message says what to do."""


class SwitchedOff(GismoError):
    """GISMO_DISABLE is set."""


class _Enabled:
    store: str | None = None


def enable(store: str) -> None:
    """Keep the large objects of the next ray.init() in this store, in this process and in its workers.

    store: as GISMO_STORE names it, "file:/dev/shm/pool" or "dax:/dev/dax0.0", on each node of the cluster. Call it before
    ray.init(), also where that connects to a cluster that runs (address=...): workers learn of the store through the
    job's runtime_env, to which your own may add. The nodes need the package and the pool; `gismo ray check` looks.

    Errors: TooLate after ray.init(); SwitchedOff; compat.UnsupportedRay; where the store cannot be opened here what
    gismo_core.open() raises. Nothing has changed then.
    """
    if os.environ.get("GISMO_DISABLE", "") not in ("", "0"):
        raise SwitchedOff("GISMO_DISABLE is set, which switches Gismo off: unset it, or leave enable() out")
    import ray

    from gismo_core.ray import compat, patches, session

    if ray.is_initialized():
        if os.environ.get("GISMO_STORE") == store and session.current() is not None:
            return  # a cell that is run again
        raise TooLate(
            "ray.init() was called already, so its workers cannot be told of the store: call ray.shutdown(), then "
            f"gismo_core.ray.enable({store!r}), then ray.init(); or start everything with GISMO_STORE={store} in the "
            "environment"
        )
    import gismo_core

    gismo_core.probe(store)
    if patches.internals() is None:
        compat.load()  # raises what install() would only warn of, and a session at its beginning
    compat.check_tables()
    os.environ["GISMO_STORE"] = _Enabled.store = store
    session.forget_store()
    patches.install()


def pass_on(job_config: Any) -> None:
    """Ray connects with this JobConfig: have workers told of the store, unless the user's runtime_env does."""
    if _Enabled.store is None or job_config is None:
        return
    runtime_env = dict(job_config.runtime_env or {})
    told = {"GISMO_STORE": _Enabled.store, **(runtime_env.get("env_vars") or {})}
    job_config.set_runtime_env({**runtime_env, "env_vars": told})
