"""CustomResourceDefinitions from the models of api/, a file for each: `python -m gismo_operator.crdgen FOLDER CHART`.

In the chart they are templates, since Helm never upgrades what lies in a chart's own crds/; and they outlive the chart, as
with a CRD all its objects go.

Kubernetes wants a structural schema: no references, no titles, no null, and no additionalProperties beside properties.
pydantic's JSON schema is brought into that form. CRDs are never edited by hand; a test compares them with this.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gismo_operator.api import v1alpha1
from gismo_operator.api.rules import Rule

_HEADER = "# Made by `make crds` from operator/gismo_operator/api/v1alpha1.py; not to be edited.\n"
_DROPPED = frozenset({"title", "$defs", "additionalProperties"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of the group."""

    model: type[v1alpha1.Model]
    plural: str
    short: str
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()
    selectable: tuple[str, ...] = ()  # fields that a list can be narrowed by

    @property
    def name(self) -> str:
        """Such as GismoPool."""
        return self.model.__name__


def _condition(name: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].status'


_AGE = Column("Age", ".metadata.creationTimestamp", "date")

KINDS = (
    Kind(
        v1alpha1.GismoPool,
        "gismopools",
        "gpool",
        (
            Column("Ready", _condition("Ready")),
            Column("Size", ".status.capacity"),
            Column("Free", ".status.free"),
            Column("Namespaces", ".status.namespacesReady"),
            Column("Nodes", ".status.nodesReady"),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', wide=True),
            _AGE,
        ),
        tuple(v1alpha1.POOL_RULES),
    ),
    Kind(
        v1alpha1.GismoNamespace,
        "gismonamespaces",
        "gns",
        (
            Column("Pool", ".spec.pool"),
            Column("Size", ".spec.sizeBytes", "integer"),
            Column("State", ".spec.state"),
            Column("Ready", _condition("Ready")),
            Column("Nodes", ".status.nodesReady"),
            Column("In use", _condition("InUse"), wide=True),
            Column("Not loaded", _condition("NotLoaded"), wide=True),
            _AGE,
        ),
        selectable=(".spec.pool",),
    ),
    Kind(
        v1alpha1.GismoNode,
        "gismonodes",
        "gnode",
        (
            Column("Pool", ".spec.pool"),
            Column("Node", ".spec.node"),
            Column("Host", ".spec.hostId", "integer"),
            Column("Standing", ".spec.standing"),
            Column("Ready", _condition("Ready")),
            Column("Writer", ".spec.writer", "boolean", wide=True),
            _AGE,
        ),
        tuple(v1alpha1.NODE_RULES),
        selectable=(".spec.pool",),
    ),
)


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A part of pydantic's JSON schema as Kubernetes wants it."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        return structural({**target, **{key: value for key, value in schema.items() if key != "$ref"}}, definitions)
    if "anyOf" in schema and not schema.get("x-kubernetes-int-or-string"):
        options = [one for one in schema["anyOf"] if one.get("type") != "null"]
        if len(options) != 1:
            raise ValueError(f"a CRD cannot say that a value is one of several things: {schema}")
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
        return structural({**options[0], **rest}, definitions)
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            made[key] = {name: structural(one, definitions) for name, one in value.items()}
        elif key == "items":
            made[key] = structural(value, definitions)
        elif key == "additionalProperties" and isinstance(value, Mapping):
            made[key] = structural(value, definitions)  # a map of strings
        elif key == "exclusiveMaximum":  # a number in JSON schema, a flag here
            made["maximum"] = value - 1
        elif key == "const":
            made["enum"] = [value]
        elif key not in _DROPPED:
            made[key] = value
    return made


def schema_of(model: type[v1alpha1.Model]) -> dict[str, Any]:
    """The structural schema of one model."""
    schema = model.model_json_schema(by_alias=True)
    return structural(schema, schema.get("$defs", {}))


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of one kind."""
    spec, status = (schema_of(kind.model.model_fields[part].annotation) for part in ("spec", "status"))  # type: ignore[arg-type]
    description = (kind.model.__doc__ or "").strip().splitlines()[0]
    schema: dict[str, Any] = {
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    if kind.rules:
        schema["x-kubernetes-validations"] = list(kind.rules)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{v1alpha1.GROUP}"},
        "spec": {
            "group": v1alpha1.GROUP,
            "scope": "Cluster",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["gismo"],
            },
            "versions": [
                {
                    "name": v1alpha1.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    **(
                        {"selectableFields": [{"jsonPath": path} for path in kind.selectable]}
                        if kind.selectable
                        else {}
                    ),
                    "additionalPrinterColumns": [
                        {
                            "name": column.name,
                            "type": column.type,
                            "jsonPath": column.path,
                            "priority": int(column.wide),
                        }
                        for column in kind.columns
                    ],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def written(kind: Kind) -> str:
    """The file of one kind."""
    return _HEADER + str(yaml.safe_dump(crd(kind), sort_keys=False, width=120, allow_unicode=True))


def in_chart(kind: Kind) -> str:
    """The template of one kind."""
    made = crd(kind)
    made["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    made["metadata"]["labels"] = {"app.kubernetes.io/part-of": "gismo"}
    text = str(yaml.safe_dump(made, sort_keys=False, width=120, allow_unicode=True))
    if "{{" in text:
        raise ValueError(f"{kind.name}: what Helm takes for its own stands in a description")
    return "{{- if .Values.crds.install }}\n" + _HEADER + text + "{{- end }}\n"


def file_name(kind: Kind) -> str:
    """As controller-gen calls them."""
    return f"{v1alpha1.GROUP}_{kind.plural}.yaml"


def main(arguments: list[str]) -> int:
    """Write all of them."""
    if len(arguments) != 2 or {"-h", "--help"} & set(arguments):
        print("python -m gismo_operator.crdgen FOLDER CHART", file=sys.stderr)
        return 2
    plain, chart = Path(arguments[0]), Path(arguments[1]) / "templates" / "crds"
    for folder, text in ((plain, written), (chart, in_chart)):
        folder.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            (folder / file_name(kind)).write_text(text(kind))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
