"""Is everything in place for the store, node by node, and why not: what `gismo ray check` says.

On each node runs one small task, pinned to it, which asks for no CPU. The task is sent as code, so that a node without
the package can say so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gismo_core.ray import cluster, scan

_NODE_S = 60.0
_KEEPER_S = 20.0


@dataclass(frozen=True, slots=True)
class Node:
    """What one node says of itself. `problems`: what is not in place there, empty when all is well."""

    node_id: str
    address: str
    hostname: str
    python: str | None = None
    ray: str | None = None
    gismo: str | None = None  # version of the package that its workers import
    where: str | None = None  # the folder of that package
    store: str | None = None  # GISMO_STORE in its workers
    store_uuid: str | None = None
    store_format: int | None = None
    coherence: str | None = None
    host_id: int | None = None
    integrated: bool = False
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Keeper:
    """Whether the keeper answers, and what it has done."""

    alive: bool
    node_id: str | None = None
    scans: int = 0
    freed: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The whole answer. `ok`: objects are kept in one store on every node, and freed."""

    ok: bool
    address: str
    cluster_id: str
    nodes: tuple[Node, ...]
    keeper: Keeper
    scan_complete: bool
    scan_problem: str | None
    scan_s: float
    records: int | None  # of this cluster; None where no node could open the store
    record_bytes: int | None
    problems: tuple[str, ...] = field(default=())  # of the cluster as a whole


def check(address: str | None = None) -> Report:
    """Look at a running cluster. Errors: cluster.NoCluster."""
    with cluster.connected(address) as ray:
        alive = [node for node in ray.nodes() if node["Alive"]]
        answers = _ask(ray, alive)
        nodes = tuple(_node(node, answers[node["NodeID"]]) for node in alive)
        uuid = next((node.store_uuid for node in nodes if node.integrated), None)
        keeper = _keeper(ray, uuid)
        began_s = time.monotonic()
        scanner = scan.Scanner(ray)
        seen = scanner.scan(scan.Wanted(set(), set(), set()))
        scanner.close()
        scan_s = time.monotonic() - began_s
        scan_problem = seen.reason if isinstance(seen, scan.Incomplete) else None
        problems = tuple(_of_the_whole(nodes))
        counted = [answer["records"] for answer in answers.values() if answer.get("records") is not None]
        ok = not (problems or keeper.problem or scan_problem or any(node.problems for node in nodes))
        return Report(
            ok=ok,
            address=ray.get_runtime_context().gcs_address,
            cluster_id=cluster.id_of(ray).hex(),
            nodes=nodes,
            keeper=keeper,
            scan_complete=scan_problem is None,
            scan_problem=scan_problem,
            scan_s=scan_s,
            records=counted[0][0] if counted else None,
            record_bytes=counted[0][1] if counted else None,
            problems=problems,
        )


def _of_the_whole(nodes: Iterable[Node]) -> Iterable[str]:
    uuids = sorted({node.store_uuid for node in nodes if node.store_uuid is not None})
    if len(uuids) > 1:
        yield (
            f"the nodes have {len(uuids)} different stores open ({', '.join(uuids)}): what one writes the others cannot "
            "read; make GISMO_STORE name the same memory everywhere"
        )
    versions = sorted({node.gismo for node in nodes if node.gismo is not None})
    if len(versions) > 1:
        yield f"the nodes have different versions of gismo-cxl ({', '.join(versions)}): install the same on all"


def _ask(ray: Any, nodes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(_make_probe())
    calls = {}
    for node in nodes:
        pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        calls[node["NodeID"]] = probe.options(num_cpus=0, max_retries=0, scheduling_strategy=pinned).remote(
            cluster.id_of(ray)
        )
    ready, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=_NODE_S)
    answers: dict[str, dict[str, Any]] = {}
    for node_id, call in calls.items():
        if call not in ready:
            answers[node_id] = {
                "problems": [f"no answer within {_NODE_S:.0f} s: is the node overloaded or unreachable?"]
            }
            continue
        try:
            answers[node_id] = ray.get(call)
        except Exception as error:  # noqa: BLE001 - whatever the node answered, it is what is to be shown
            answers[node_id] = {"problems": [f"the check failed there: {type(error).__name__}: {error}"]}
    return answers


def _node(node: dict[str, Any], answer: dict[str, Any]) -> Node:
    known = {name: value for name, value in answer.items() if name not in ("problems", "records")}
    return Node(
        node_id=node["NodeID"],
        address=node["NodeManagerAddress"],
        hostname=node["NodeManagerHostname"],
        problems=tuple(answer["problems"]),
        **known,
    )


def _keeper(ray: Any, store_uuid: str | None) -> Keeper:
    from gismo_core.ray import keeping

    if store_uuid is None:
        return Keeper(False, problem="there is no keeper, because no node keeps objects in a store")
    name = keeping.name_of(store_uuid)
    end = time.monotonic() + _KEEPER_S  # the first worker that has the integration has it made: our own task's, maybe
    while True:
        try:
            status = ray.get(ray.get_actor(name, namespace=keeping.NAMESPACE).status.remote(), timeout=_KEEPER_S)
            return Keeper(True, status["node"], status["scans"], status["freed"])
        except Exception as error:  # noqa: BLE001 - not there (ValueError), dead, starting, or mute: all to be shown
            if time.monotonic() > end:
                return Keeper(
                    False,
                    problem=f"the keeper {name} does not answer, so nothing is freed and returns go to Ray's own store: "
                    f"{type(error).__name__}: {error}",
                )
            time.sleep(0.2)


def _make_probe() -> Any:
    """The task. Nested, so that it is pickled as code: the package may not be there to import it from."""

    def probe(cluster_id: bytes) -> dict[str, Any]:
        import os
        import platform
        import sys

        import ray

        problems: list[str] = []
        answer: dict[str, Any] = {
            "python": platform.python_version(),
            "ray": ray.__version__,
            "store": os.environ.get("GISMO_STORE"),
            "problems": problems,
        }
        try:
            import gismo_core
        except Exception as error:  # noqa: BLE001 - also what a library of another platform raises
            problems.append(f"gismo_core cannot be imported there ({error}): pip install 'gismo-cxl[ray]' on this node")
            return answer
        answer["gismo"] = gismo_core.__version__
        answer["where"] = os.path.dirname(os.path.abspath(gismo_core.__file__))
        from gismo_core import errors
        from gismo_core.ray import compat, patches, session
        from gismo_core.ray.listing import Listing

        if not answer["store"]:
            problems.append("GISMO_STORE is not set in its workers: set it for `ray start`, or call enable()")
        if os.environ.get("GISMO_DISABLE", "") not in ("", "0"):
            problems.append("GISMO_DISABLE is set in its workers, which switches Gismo off")
        elif answer["store"]:
            try:
                if patches.internals() is None:
                    compat.load()
                    problems.append(
                        f"the integration was not loaded at the start of the worker's Python ({sys.executable}): its "
                        "site-packages has no gismo.pth (reinstall gismo-cxl; docs/ray.md, Loading, has other ways)"
                    )
                compat.check_tables()
            except compat.UnsupportedRay as error:
                problems.append(str(error))
        if answer["store"]:
            try:
                store = session.open_store() or gismo_core.open()
            except errors.GismoError as error:
                problems.append(f"the store cannot be opened: {error}")
            else:
                info = store.info
                answer["store_uuid"] = str(info.store_uuid)
                answer["store_format"] = info.format_version
                answer["coherence"] = info.coherence
                answer["host_id"] = store.stats().lane
                answer["integrated"] = session.current() is not None
                if patches.internals() is not None and not answer["integrated"]:
                    problems.append("the integration did not start in this worker; its log says why")
                listed, _ = Listing(store, cluster_id).own()
                answer["records"] = len(listed), sum(gismo_core.Handle(raw).length for raw in listed.raws())
        return answer

    return probe
