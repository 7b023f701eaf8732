"""The CRDs: made from the models, and in the form that Kubernetes takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gismo_operator import crdgen
from gismo_operator.api import v1alpha1

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("folder", "text"), [("crds", crdgen.written), ("charts/gismo/templates/crds", crdgen.in_chart)]
)
def test_the_files_are_what_the_models_say(folder: str, text: Callable[[crdgen.Kind], str]) -> None:
    made = {crdgen.file_name(kind): text(kind) for kind in crdgen.KINDS}
    there = {path.name: path.read_text() for path in (ROOT / folder).glob("*.yaml")}
    assert there == made, "run `make crds`"


def parts(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, one in schema.get("properties", {}).items():
        yield from parts(one, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from parts(schema[key], f"{path}[]")


def all_parts() -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in crdgen.KINDS:
        made = yaml.safe_load(crdgen.written(kind))
        schema = made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        yield from parts(schema, kind.name)


def test_the_schema_is_structural() -> None:
    for path, part in all_parts():
        assert not {"$ref", "$defs", "title", "const", "exclusiveMaximum"} & part.keys(), path
        assert part.get("x-kubernetes-int-or-string") or part["type"] != "null", path
        assert not ("properties" in part and "additionalProperties" in part), path


def test_every_field_is_explained() -> None:
    for path, part in all_parts():
        is_own = path.count(".") >= 2 and not path.endswith("[]")
        assert not is_own or len(part.get("description", "")) > 8, path


def test_every_list_and_text_has_a_bound() -> None:
    # Without, the API server refuses rules over them as too expensive.
    for path, part in all_parts():
        if ".status" in path or path.count(".") < 2:
            continue
        if part.get("type") == "array":
            assert "maxItems" in part, path
        if part.get("type") == "string" and "enum" not in part and not path.endswith("[]"):
            assert "maxLength" in part, path


def test_every_rule_says_what_to_do() -> None:
    rules = [(path, one) for path, part in all_parts() for one in part.get("x-kubernetes-validations", [])]
    assert len(rules) > 15
    for path, one in rules:
        assert len(one["message"]) > 10, path


def test_what_kubectl_sends_is_read() -> None:
    manifest = yaml.safe_load(
        """
        metadata: {name: rack1, uid: u, resourceVersion: "7", generation: 2}
        spec:
          source: {emulated: {capacity: 8Gi}}
          namespaces:
          - {name: team-a, size: 4Gi, access: {kubernetesNamespaces: [team-a]}}
          - {name: team-b, size: 33554432, reclaimPolicy: Retain}
        """
    )
    pool = v1alpha1.GismoPool.model_validate(manifest)
    assert pool.spec.source.emulated is not None
    assert pool.spec.source.emulated.directory == "/var/lib/gismo/emulated"
    assert [one.size for one in pool.spec.namespaces] == ["4Gi", "33554432"]
    assert pool.spec.namespaces[0].access.kubernetes_namespaces == ["team-a"]
    assert pool.spec.namespaces[1].reclaim_policy is v1alpha1.ReclaimPolicy.RETAIN
    assert pool.spec.namespaces[1].shares_per_node == 64
