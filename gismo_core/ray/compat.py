"""Every private name of Ray that is used, in one place, and the check that each is what it was.

Private names change between releases. `load()` looks each up and compares its shape; where one differs it raises
UnsupportedRay, the integration stays off with one warning, and Ray works as always. What only scans need takes three
times as long to look up as all the rest, and a worker never scans: check_tables() is for drivers, and for whoever makes
a keeper. Without a keeper nothing is freed, so a worker that did not look loses nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable
from concurrent.futures import thread as futures_thread
from types import CodeType
from typing import Any, NamedTuple

from gismo_core.errors import GismoError
from gismo_core.ray.record import Kind

OLDEST = (2, 57)
NEWEST_TESTED = (2, 60)


class UnsupportedRay(GismoError):
    """This Ray is not laid out as the integration needs it; the message says what differs."""


class Internals(NamedTuple):
    """What of Ray the integration stands on."""

    ray: Any
    worker_module: Any  # ray._private.worker
    serialization: Any  # ray._private.serialization
    context: type[Any]  # SerializationContext
    worker: type[Any]  # Worker
    remote_function: type[Any]
    actor_class: type[Any]
    actor_handle: type[Any]
    function_manager: type[Any]  # FunctionActorManager
    signature: Any  # ray._common.signature
    raylet: Any  # ray._raylet
    # Who may call serialize, by the id of the calling frame's code, 0 where there is none: a code object computes its hash anew
    # each time it is looked up. They belong to functions of Ray's modules, which stay.
    callers: dict[int, Kind]
    worker_mode: int
    version: str


def version_of(text: str) -> tuple[int, int]:
    """(major, minor) of "2.60.0" or "3.0.0.dev0"."""
    parts = text.split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        raise UnsupportedRay(f"Ray calls itself {text!r}, which is no version") from None


def load() -> Internals:
    """Look up and check everything but what scans need; UnsupportedRay says what differs."""
    import ray

    version = version_of(ray.__version__)
    if version < OLDEST:
        raise UnsupportedRay(
            f"Ray {ray.__version__} is too old for the Gismo store: install ray>={OLDEST[0]}.{OLDEST[1]}"
        )
    try:
        for name in (*_TABLES, "grpc"):
            if importlib.util.find_spec(name) is None:
                raise ImportError(f"No module named {name!r}")
        return _look_up(ray)
    except (AttributeError, ImportError, KeyError, ValueError) as error:  # ValueError: a module without a spec
        raise _differs(ray, error) from error


def check_tables() -> None:
    """Look up and check what scans need: the reference tables, as a raylet gives them. UnsupportedRay says what differs."""
    import ray

    if importlib.util.find_spec("numpy") is None:
        raise UnsupportedRay("NumPy is missing, with which the keeper reads Ray's reference tables: pip install numpy")
    try:
        _check_tables()
    except (AttributeError, ImportError, KeyError) as error:
        raise _differs(ray, error) from error


def _differs(ray: Any, error: Exception) -> UnsupportedRay:
    newest = ".".join(map(str, NEWEST_TESTED))
    return UnsupportedRay(
        f"Ray {ray.__version__} differs inside from what this version of gismo-cxl knows ({error}): install a newer "
        f"gismo-cxl, or ray<={newest}; with `pip install 'ray[default]'` if grpc is what is missing"
    )


_TABLES = ("ray.core.generated.node_manager_pb2", "ray._private.grpc_utils")


def _check_tables() -> None:
    from gismo_core.ray import answer

    node_manager_pb2, grpc_utils = map(importlib.import_module, _TABLES)
    answer.call()
    _there(answer.entry_class(), "FromString")
    _there(grpc_utils, "init_grpc_channel")
    statuses = dict(importlib.import_module("ray.core.generated.common_pb2").TaskStatus.items())
    if [statuses[name] for name in ("NIL", "FINISHED", "FAILED")] != [0, 11, 12]:
        raise AttributeError(f"TaskStatus is numbered otherwise: {statuses}")
    for name in ("object_id", "local_ref_count", "submitted_task_ref_count", "contained_in_owned", "task_status"):
        _field(node_manager_pb2.GetNodeStatsReply, ("core_workers_stats", "object_refs", name))
    _field(node_manager_pb2.GetNodeStatsReply, ("core_workers_stats", "worker_id"))


def _look_up(ray: Any) -> Internals:
    def module(name: str) -> Any:
        return importlib.import_module(f"ray.{name}")

    serialization = module("_private.serialization")
    worker_module = module("_private.worker")
    raylet = module("_raylet")
    core_worker = raylet.CoreWorker
    signature = module("_common.signature")

    context = serialization.SerializationContext
    worker = worker_module.Worker
    function = module("remote_function").RemoteFunction
    actor_class = module("actor").ActorClass
    actor_handle = module("actor").ActorHandle
    function_manager = module("_private.function_manager").FunctionActorManager
    _there(function_manager, "get_execution_info")
    _parameters(context.serialize, ["self", "value"])
    _parameters(context._serialize_to_pickle5, ["self", "metadata", "value"])
    _parameters(context._deserialize_object, ["self", "data", "metadata", "object_ref"])
    _parameters(context.deserialize_objects, ["self", "serialized_ray_objects", "object_refs"])
    _there(context, "get_outer_object_ref")
    _parameters(worker.put_object, ["self", "value"])
    _parameters(worker.get_objects, ["self", "object_refs", "timeout", "return_exceptions"])
    _parameters(signature.recover_args, ["flattened_args"])
    _there(raylet, "_set_future_helper")
    for name in (
        "add_object_out_of_scope_callback", "get_current_task_id", "get_current_job_id", "get_actor_id", "get_worker_id",
        "get_current_node_id", "get_current_task_name", "global_gc",
    ):  # fmt: skip
        _there(core_worker, name)
    for name in ("Pickle5Writer", "Pickle5SerializedObject", "MessagePackSerializedObject", "MessagePackSerializer"):
        _there(serialization, name)
    for name in ("get_and_clear_contained_object_refs", "set_in_band_serialization", "set_out_of_band_serialization"):
        _there(context, name)

    callers: dict[int, Kind] = {
        id(_code(worker.put_object)): Kind.PUT,
        id(_inner(function._remote, "invocation")): Kind.ARGUMENT,
        id(_code(actor_class._remote)): Kind.ARGUMENT,
        id(_code(actor_handle._actor_method_call)): Kind.ARGUMENT,
        # Returns are stored by C++: from the worker's main loop, from a thread of its own (no Python frame), and,
        # for the generators of async actors, from a thread pool.
        id(_code(worker.main_loop)): Kind.RETURN,
        id(_code(futures_thread._WorkItem.run)): Kind.RETURN,
        0: Kind.RETURN,
    }
    return Internals(
        ray=ray,
        worker_module=worker_module,
        serialization=serialization,
        context=context,
        worker=worker,
        remote_function=function,
        actor_class=actor_class,
        actor_handle=actor_handle,
        function_manager=function_manager,
        signature=signature,
        raylet=raylet,
        callers=callers,
        worker_mode=worker_module.WORKER_MODE,
        version=ray.__version__,
    )


def _there(holder: Any, name: str) -> None:
    getattr(holder, name)


def _parameters(function: Callable[..., Any], first: list[str]) -> None:
    names = list(inspect.signature(inspect.unwrap(function)).parameters)
    if names[: len(first)] != first:
        raise AttributeError(f"{function.__qualname__} takes {names}, not {first}")


def _field(message: Any, path: Iterable[str]) -> None:
    descriptor = message.DESCRIPTOR
    for name in path:
        descriptor = descriptor.fields_by_name[name].message_type if descriptor else None


def _code(function: Callable[..., Any]) -> CodeType:
    code: CodeType = inspect.unwrap(function).__code__
    return code


def _inner(function: Callable[..., Any], name: str) -> CodeType:
    for constant in _code(function).co_consts:
        if isinstance(constant, CodeType) and constant.co_name == name:
            return constant
    raise AttributeError(f"{function.__qualname__} has no inner function {name}")
