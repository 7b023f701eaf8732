"""An API server in memory, as far as the operator uses one: objects, resourceVersions, server-side apply, finalizers.

`connect()` gives a kubernetes.client.ApiClient whose requests end here, so that all of the client's own code runs. What a
call meets on its way is asked of `faults` for each; by default nothing. `on_change` is told every change of every object.

Modelled after the real one: optimistic concurrency (409), names that are taken (409), what is not there (404), a continue
token that has run out (410), fields that never change (422), ownership of fields per manager *and operation*, lists that are
maps or sets (read from crds/), pruning, defaults, a generation that only the spec moves, the status as a subresource, objects that
stay until the last finalizer has gone, and writes that change nothing and so move no version.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

OWN = "/apis/gismo.io/v1alpha1"
CRDS = Path(__file__).resolve().parents[2] / "crds"
Path_ = tuple[Any, ...]  # to a field: names of properties, and ("key", …) or ("value", …) for an item of a list
NEVER_CHANGES = {
    "gismonamespaces": ("pool", "namespace", "offsetBytes", "sizeBytes"),
    "gismonodes": ("pool", "node"),
    "gismopools": ("source",),
}
KINDS = {"gismopools": "GismoPool", "gismonamespaces": "GismoNamespace", "gismonodes": "GismoNode", "nodes": "Node"}


class Refused(Exception):
    """An answer that is not 2xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Call:
    """A request on its way."""

    def __init__(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> None:
        parts = urlsplit(url)
        self.method = method
        self.query = dict(parse_qsl(parts.query))
        self.content_type = headers.get("Content-Type", "")
        self.body: Any = json.loads(body) if body else None
        self.plural, self.name, self.subresource = "", "", ""
        self.path = unquote(parts.path)
        for prefix in (OWN + "/", "/api/v1/"):
            if self.path.startswith(prefix):
                self.plural, self.name, self.subresource, *_ = [*self.path[len(prefix) :].split("/"), "", ""]

    @property
    def is_write(self) -> bool:
        """Does it change anything?"""
        return self.method != "GET"

    def __repr__(self) -> str:
        return f"{self.method} {self.plural}/{self.name}{'/' + self.subresource if self.subresource else ''}"


class ApiServer:
    """Everything that etcd would have."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.owners: dict[tuple[str, str], dict[tuple[str, str, str], frozenset[Path_]]] = {}
        self.version = 0
        self.on_change: Callable[[str, dict[str, Any] | None, dict[str, Any] | None], object] = lambda *_: None
        self._pages: dict[str, list[dict[str, Any]]] = {}
        self._uids = 0

    # ---- requests ------------------------------------------------------------------------------------

    def do(self, call: Call) -> Any:
        """Carry it out; the answer's body. Refused."""
        if not call.plural:
            return _discovery(call.path)
        key = (call.plural, call.name)
        if call.method == "GET":
            return copy.deepcopy(self._found(key)) if call.name else self._list(call)
        if call.method == "POST":
            return self._create(call)
        if call.method == "DELETE":
            return self._delete(key, call.body or {})
        if call.content_type.startswith("application/apply-patch"):
            return self._apply(key, call)
        return self._merge_patch(key, call)

    def get(self, plural: str, name: str) -> dict[str, Any] | None:
        """What is there, not to be changed."""
        return self.objects.get((plural, name))

    def all(self, plural: str) -> list[dict[str, Any]]:
        """Of one kind, by name."""
        return [one for (kind, _), one in sorted(self.objects.items()) if kind == plural]

    def apply(self, plural: str, body: dict[str, Any], manager: str, subresource: str = "") -> None:
        """By others than the operator; nothing happens on the way."""
        call = Call("PATCH", "/", {"Content-Type": "application/apply-patch+yaml"}, json.dumps(body))
        call.plural, call.name, call.subresource = plural, body["metadata"]["name"], subresource
        call.query = {"fieldManager": manager, "force": "True"}
        self.do(call)

    def delete(self, plural: str, name: str) -> None:
        """By others than the operator."""
        self._delete((plural, name), {})

    def _found(self, key: tuple[str, str]) -> dict[str, Any]:
        if key not in self.objects:
            raise Refused(404, f'{key[0]}.gismo.io "{key[1]}" not found')
        return self.objects[key]

    def _list(self, call: Call) -> dict[str, Any]:
        token = call.query.get("continue")
        if token is not None:
            if token not in self._pages:
                raise Refused(410, "the provided continue parameter is too old")
            left = self._pages.pop(token)
        else:
            wanted = [part.split("=", 1) for part in call.query.get("fieldSelector", "").split(",") if part]
            left = [
                one
                for one in self.all(call.plural)
                if all(str(_at(one, path.split("."))) == value for path, value in wanted)
            ]
        limit = int(call.query.get("limit") or 0) or len(left)
        page, left = left[:limit], left[limit:]
        metadata = {"resourceVersion": str(self.version)}
        if left:
            metadata["continue"] = f"{self.version}.{len(left)}.{len(self._pages)}"
            self._pages[metadata["continue"]] = left  # of this moment: what changes meanwhile is not seen
        api = "v1" if call.plural == "nodes" else "gismo.io/v1alpha1"
        return {
            "apiVersion": api,
            "kind": f"{KINDS[call.plural]}List",
            "metadata": metadata,
            "items": copy.deepcopy(page),
        }

    def _create(self, call: Call) -> dict[str, Any]:
        new = _pruned(call.body, _schema(call.plural))
        key = (call.plural, new["metadata"]["name"])
        if key in self.objects:
            raise Refused(409, f"{key[0]} {key[1]} already exists")
        if new["metadata"].get("resourceVersion"):
            raise Refused(400, "resourceVersion should not be set on objects to be created")
        if key[0] in NEVER_CHANGES:
            new.pop("status", None)
        owner = (call.query.get("fieldManager", "?"), "Update", "")
        return self._born(key, new, owner)

    def _born(self, key: tuple[str, str], new: dict[str, Any], owner: tuple[str, str, str]) -> dict[str, Any]:
        owned = frozenset(_paths(_owned_part(new), _schema(key[0])))
        _fill(new, _schema(key[0]))
        self._uids += 1
        new["kind"] = KINDS[key[0]]
        new["metadata"].update({"uid": f"uid-{self._uids}", "generation": 1})
        return self._store(key, None, new, {owner: owned})

    def _delete(self, key: tuple[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
        old = self._found(key)
        for field, value in (options.get("preconditions") or {}).items():
            if old["metadata"].get(field) != value:
                raise Refused(409, f"the {field} in the precondition ({value}) is not {old['metadata'].get(field)}")
        if old["metadata"].get("finalizers"):
            if "deletionTimestamp" in old["metadata"]:
                return copy.deepcopy(old)
            new = copy.deepcopy(old)
            new["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            new["metadata"]["generation"] += 1
            return self._store(key, old, new, self.owners[key])
        self._remove(key)
        return {"kind": "Status", "status": "Success"}

    def _apply(self, key: tuple[str, str], call: Call) -> dict[str, Any]:
        manager = (call.query["fieldManager"], "Apply", call.subresource)
        schema = _schema(key[0])
        applied = _pruned(call.body, schema)
        version = applied["metadata"].get("resourceVersion")
        old = self.objects.get(key)
        if old is None:
            if call.subresource or version:
                raise Refused(409 if version else 404, f"{key[0]} {key[1]} is not there")
            return self._born(key, {**applied, "metadata": {**applied["metadata"], "name": key[1]}}, manager)
        _check_version(old, version)
        part = {"status": applied.get("status", {})} if call.subresource else _owned_part(applied)
        owned = frozenset(_paths(part, schema))
        owners = dict(self.owners[key])
        new = _merged(old, part, schema)
        taken = {path for path in owned if _value(old, path) != _value(new, path)}
        if taken and call.query.get("force") not in ("True", "true"):
            for other, paths in owners.items():
                if other != manager and paths & taken:
                    raise Refused(409, f"conflict with {other[0]}")
        gone = owners.get(manager, frozenset()) - owned
        for other in owners:
            if other != manager:
                owners[other] -= taken
                gone -= owners[other]
        owners[manager] = owned
        held = {path[:length] for paths in owners.values() for path in paths for length in range(len(path) + 1)}
        for path in sorted(gone - held, key=len):
            _drop(new, path)
        return self._changed(key, old, new, owners)

    def _merge_patch(self, key: tuple[str, str], call: Call) -> dict[str, Any]:
        old = self._found(key)
        if call.content_type != "application/merge-patch+json":
            raise Refused(415, f"{call.content_type} is not modelled")
        _check_version(old, ((call.body or {}).get("metadata") or {}).get("resourceVersion"))
        new = _pruned(_json_merged(old, call.body), _schema(key[0]))
        manager = (call.query.get("fieldManager", "?"), "Update", call.subresource)
        for name in {"status", "spec", "metadata"}:
            if (name == "status") != (call.subresource == "status") and name != "metadata" and name in old:
                new[name] = copy.deepcopy(old[name])
        now = {path for path in _paths(_owned_part(new), _schema(key[0])) if _value(old, path) != _value(new, path)}
        owners = {other: paths - now for other, paths in self.owners[key].items()}
        owners[manager] = owners.get(manager, frozenset()) | now
        return self._changed(key, old, new, owners)

    def _changed(
        self, key: tuple[str, str], old: dict[str, Any], new: dict[str, Any], owners: dict[Any, frozenset[Path_]]
    ) -> dict[str, Any]:
        _fill(new, _schema(key[0]))
        for field in ("resourceVersion", "uid", "generation", "name"):
            new["metadata"][field] = old["metadata"][field]
        for field in NEVER_CHANGES.get(key[0], ()):
            if new.get("spec", {}).get(field) != old.get("spec", {}).get(field):
                raise Refused(422, f"spec.{field} never changes")
        was = old.get("spec", {}).get("hostId")
        if new.get("spec", {}).get("hostId") != was and old.get("status", {}).get("takenHostId") != was:
            raise Refused(422, "a node keeps its host id")
        finalizers = new["metadata"].get("finalizers") or []
        is_deleted = "deletionTimestamp" in old["metadata"]
        if is_deleted and set(finalizers) - set(old["metadata"].get("finalizers") or []):
            raise Refused(
                422, "metadata.finalizers: Forbidden: no new finalizers can be added while it is being deleted"
            )
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] += 1
        owners = {owner: paths for owner, paths in owners.items() if paths}
        if new == old and owners == self.owners[key]:
            return copy.deepcopy(old)
        answer = self._store(key, old, new, owners)
        if is_deleted and not finalizers:
            self._remove(key)
        return answer

    def _store(self, key: tuple[str, str], old: Any, new: dict[str, Any], owners: dict[Any, Any]) -> dict[str, Any]:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key], self.owners[key] = new, owners
        self.on_change(key[0], old, new)
        return copy.deepcopy(new)

    def _remove(self, key: tuple[str, str]) -> None:
        self.version += 1
        old = self.objects.pop(key)
        del self.owners[key]
        self.on_change(key[0], old, None)


def connect(carry_out: Callable[[Call], Any]) -> Any:
    """kubernetes.client.ApiClient; carry_out gives the body of an answer, or raises Refused or what urllib3 raises."""
    from kubernetes import client

    configuration = client.Configuration(host="http://model")
    configuration.retries = False
    api = client.ApiClient(configuration)
    connections: Any = _Connections(carry_out)
    api.rest_client.pool_manager = connections
    return api


class _Connections:
    """In the place of urllib3.PoolManager."""

    def __init__(self, carry_out: Callable[[Call], Any]) -> None:
        self._carry_out = carry_out

    def request(self, method: str, url: str, *, headers: Any, timeout: Any, body: Any = None, **_: Any) -> Any:
        call = Call(method, url, headers, body)
        assert timeout is not None or not call.plural, f"{call}: a request that may hang for ever"
        try:
            return _Answer(200, self._carry_out(call))
        except Refused as error:
            return _Answer(error.status, {"kind": "Status", "message": str(error), "code": error.status})

    def clear(self) -> None:
        """As urllib3's."""


class _Answer:
    def __init__(self, status: int, body: Any) -> None:
        self.status, self.reason = status, "of the model"
        self.headers = {"Content-Type": "application/json"}
        self.data = json.dumps(body).encode()


# ---- schemas ---------------------------------------------------------------------------------------------------------


@cache
def _schema(plural: str) -> Any:
    """Of the CRD; of a Node: nothing is known, and all kept."""
    if plural == "nodes":
        return {}
    text = (CRDS / f"gismo.io_{plural}.yaml").read_text()
    schema = yaml.safe_load(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    metadata = {"properties": {"finalizers": {"x-kubernetes-list-type": "set"}}, "open": True}
    return {"properties": {**schema["properties"], "metadata": metadata}, "open": True}


def _below(schema: Any, name: str) -> Any:
    found = (schema.get("properties") or {}).get(name)
    if found is not None:
        return found
    more = schema.get("additionalProperties")
    return more if isinstance(more, dict) else {}


def _pruned(value: Any, schema: Any) -> Any:
    """Less the fields that the schema does not know, as a CRD's objects are stored."""
    if isinstance(value, dict):
        known = schema.get("properties")
        is_open = known is None or schema.get("open")
        return {name: _pruned(one, _below(schema, name)) for name, one in value.items() if is_open or name in known}
    if isinstance(value, list):
        return [_pruned(one, schema.get("items") or {}) for one in value]
    return value


def _fill(value: Any, schema: Any) -> None:
    """The schema's defaults."""
    if isinstance(value, dict):
        for name, one in (schema.get("properties") or {}).items():
            if name not in value and "default" in one:
                value[name] = copy.deepcopy(one["default"])
            if name in value:
                _fill(value[name], one)
    elif isinstance(value, list):
        for one in value:
            _fill(one, schema.get("items") or {})


# ---- fields ----------------------------------------------------------------------------------------------------------


def _owned_part(body: Mapping[str, Any]) -> dict[str, Any]:
    """What somebody can own by writing the object itself."""
    metadata = {
        name: body["metadata"][name] for name in ("labels", "annotations", "finalizers") if body["metadata"].get(name)
    }
    part = {name: body[name] for name in body if name not in ("metadata", "apiVersion", "kind", "status")}
    return {**part, "metadata": metadata} if metadata else part


def _key(item: Any, schema: Any) -> Path_:
    if schema.get("x-kubernetes-list-type") == "set":
        return ("value", item)
    return ("key", *(item[name] for name in schema["x-kubernetes-list-map-keys"]))


def _is_granular(schema: Any) -> bool:
    return schema.get("x-kubernetes-list-type") in ("set", "map")


def _paths(value: Any, schema: Any, at: Path_ = ()) -> Iterator[Path_]:
    if isinstance(value, dict) and value:
        for name, one in value.items():
            yield from _paths(one, _below(schema, name), (*at, name))
    elif isinstance(value, list) and _is_granular(schema):
        for one in value:
            here = (*at, _key(one, schema))
            if schema["x-kubernetes-list-type"] == "map":
                yield here
                yield from _paths(one, schema.get("items") or {}, here)
            else:
                yield here
        if not value:
            yield at
    else:
        yield at


def _merged(live: Any, applied: Any, schema: Any) -> Any:
    if isinstance(live, dict) and isinstance(applied, dict):
        new = copy.deepcopy(live)
        for name, one in applied.items():
            new[name] = _merged(live.get(name), one, _below(schema, name))
        return new
    if isinstance(live, list) and isinstance(applied, list) and _is_granular(schema):
        before = {_key(one, schema): one for one in live}
        for one in applied:
            key = _key(one, schema)
            before[key] = _merged(before.get(key), one, schema.get("items") or {})
        return [copy.deepcopy(one) for one in before.values()]
    return copy.deepcopy(applied)


def _step(value: Any, part: Any) -> Any:
    """One step down a path: None where there is nothing."""
    if isinstance(part, str):
        return value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, list):
        return None
    if part[0] == "value":
        return part[1] if part[1] in value else None
    return next((one for one in value if _is_item(one, part)), None)


def _is_item(one: Any, part: Path_) -> bool:
    return isinstance(one, dict) and all(key in one.values() for key in part[1:]) and _named(one) == part[1]


def _named(one: Mapping[str, Any]) -> Any:
    """The lists that are maps here have one key, which is the first of these that there is."""
    return next(one[name] for name in ("storeUUID", "hostId", "type", "namespace", "name") if name in one)


def _value(value: Any, path: Path_) -> Any:
    for part in path:
        value = _step(value, part)
    return value


def _at(value: Any, names: Iterable[str]) -> Any:
    return _value(value, tuple(names))


def _drop(value: Any, path: Path_) -> None:
    for part in path[:-1]:
        value = _step(value, part)
        if value is None:
            return
    last = path[-1]
    if isinstance(last, str):
        value.pop(last, None)
    elif last[0] == "value":
        if last[1] in value:
            value.remove(last[1])
    else:
        value[:] = [one for one in value if not _is_item(one, last)]


def _json_merged(old: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    new = copy.deepcopy(old) if isinstance(old, dict) else {}
    for name, one in patch.items():
        if one is None:
            new.pop(name, None)
        else:
            new[name] = _json_merged(new.get(name), one)
    return new


def _check_version(old: Mapping[str, Any], version: str | None) -> None:
    if version and version != old["metadata"]["resourceVersion"]:
        raise Refused(409, f"the object has been modified: {old['metadata']['resourceVersion']}, not {version}")


# ---- discovery -------------------------------------------------------------------------------------------------------


def _discovery(path: str) -> Any:
    def resources(*plurals: str) -> list[dict[str, Any]]:
        return [
            {"name": name, "kind": KINDS[plural], "namespaced": False, "singularName": "", "verbs": ["get", "patch"]}
            for plural in plurals
            for name in (plural, f"{plural}/status")
        ]

    version = {"groupVersion": "gismo.io/v1alpha1", "version": "v1alpha1"}
    group = {"name": "gismo.io", "versions": [version], "preferredVersion": version}
    answers: dict[str, Any] = {
        "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.2"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "groups": [group]},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": resources("nodes")},
        OWN: {
            "kind": "APIResourceList",
            "groupVersion": "gismo.io/v1alpha1",
            "resources": resources("gismopools", "gismonamespaces", "gismonodes"),
        },
    }
    if path not in answers:
        raise Refused(404, f"{path} is not modelled")
    return answers[path]
