"""Installing the integration into Ray, once per process, when Ray has been imported."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from gismo_core import _native, node_marker
from gismo_core.ray import compat, reading, session, writing


class _Installed:
    internals: compat.Internals | None = None


def install() -> bool:
    """Patch Ray in this process; False, with one warning, where this Ray is not known. Safe to repeat."""
    if _Installed.internals is not None:
        return True
    if os.environ.get("GISMO_DISABLE", "") not in ("", "0"):
        return False
    if os.environ.get(node_marker.VARIABLE):
        # Not first with the store, which only drivers and workers open: what a process maps is how the node's agent knows.
        _native.load()
    try:
        internals = compat.load()
    except compat.UnsupportedRay as error:
        session.Warnings.once("ray", session.OFF, error)
        return False
    _Installed.internals = internals
    context, worker_module = internals.context, internals.worker_module
    context.serialize = writing.make_serialize(internals)
    context._deserialize_object = _deserialize(internals, context._deserialize_object)
    for owner, name in (
        (internals.remote_function, "_remote"),
        (internals.actor_class, "_remote"),
        (internals.actor_handle, "_actor_method_call"),
    ):
        setattr(owner, name, writing.holding_tokens(getattr(owner, name)))
    if "torch" in sys.modules:  # else when it has been imported, as gismo_boot sees to
        from gismo_core.ray import tensors

        tensors.install()
    manager = internals.function_manager
    manager.get_execution_info = _before_first_task(manager.get_execution_info)
    internals.worker.put_object = writing.keeping_promises(internals.worker.put_object)
    worker_module.connect = _connect(internals, worker_module.connect)
    worker_module.disconnect = _disconnect(worker_module.disconnect)
    if worker_module.global_worker.connected:
        session.begin(internals)
    return True


def internals() -> compat.Internals | None:
    """What was installed into, or None."""
    return _Installed.internals


def _deserialize(internals: compat.Internals, original: Any) -> Any:
    lost = internals.ray.exceptions.ObjectLostError

    @functools.wraps(original)
    def deserialize(self: Any, data: Any, metadata: Any, object_ref: Any, *rest: Any) -> Any:
        try:
            return original(self, data, metadata, object_ref, *rest)
        except reading.RecordLost:
            if object_ref is None or not object_ref.binary():
                return lost("", b"", "")
            return lost(object_ref.hex(), object_ref.owner_address(), object_ref.call_site())

    return deserialize


def _before_first_task(original: Any) -> Any:
    @functools.wraps(original)
    def get_execution_info(*arguments: Any, **options: Any) -> Any:  # once per function and worker
        here = session.current()
        if here is not None:
            here.task_begins()
        return original(*arguments, **options)

    return get_execution_info


def _connect(internals: compat.Internals, original: Any) -> Any:
    @functools.wraps(original)
    def connect(*arguments: Any, **options: Any) -> Any:
        if (job_config := options.get("job_config")) is not None:  # a driver
            from gismo_core.ray import enabling

            enabling.pass_on(job_config)
        result = original(*arguments, **options)
        session.begin(internals)
        if "ray.data.context" in sys.modules:
            from gismo_core.ray import data

            data.connected()
        return result

    return connect


def _disconnect(original: Any) -> Any:
    @functools.wraps(original)
    def disconnect(*arguments: Any, **options: Any) -> Any:
        session.end()
        return original(*arguments, **options)

    return disconnect
