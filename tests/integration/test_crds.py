"""What the API server takes and what it refuses, in which words: our CRDs on a real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import bad_input
import pytest

pytestmark = pytest.mark.integration

GOOD: dict[str, Any] = {
    "apiVersion": "gismo.io/v1alpha1",
    "kind": "GismoPool",
    "metadata": {"name": "rack1"},
    "spec": {
        "source": {"emulated": {"capacity": "8Gi"}},
        "namespaces": [
            {"name": "team-a", "size": "4Gi", "access": {"kubernetesNamespaces": ["team-a"]}},
            {"name": "team-b", "size": 33554432, "reclaimPolicy": "Retain"},
        ],
    },
}


STRICT = [("fieldValidation", "Strict")]  # as kubectl asks


@pytest.fixture(scope="module")
def pools(client: Any) -> Any:
    return client.resources.get(api_version="gismo.io/v1alpha1", kind="GismoPool")


@pytest.fixture
def pool(pools: Any) -> Iterator[Any]:
    yield pools.create(body=GOOD)
    pools.delete(name="rack1")


def refused(act: Any) -> dict[str, Any]:
    """The Status that the API server answers."""
    from kubernetes.client.exceptions import ApiException

    with pytest.raises(ApiException) as caught:
        act()
    assert caught.value.status in (400, 409, 422), caught.value
    said: dict[str, Any] = json.loads(str(caught.value.body))
    return said


def refusal(act: Any) -> str:
    return str(refused(act)["message"])


def test_a_good_one_is_taken_and_has_the_defaults(pool: Any) -> None:
    spec = pool.to_dict()["spec"]
    assert spec["source"]["emulated"]["directory"] == "/var/lib/gismo/emulated"
    assert spec["runtimeInjection"] == "UserSite"
    first, second = spec["namespaces"]
    assert (first["sharesPerNode"], first["reclaimPolicy"]) == (64, "Delete")
    assert second["access"] == {"kubernetesNamespaces": []}


SIZE = "spec.namespaces[0].size"


@pytest.mark.parametrize("row", bad_input.rows("refused pools"), ids=lambda row: row["wrong"])
def test_what_is_refused_and_in_which_words(pools: Any, row: bad_input.Row) -> None:
    """docs/bad-input.md: of the field that it names, in these words."""
    said = refused(lambda: pools.create(body=bad_input.changed(GOOD, row["given"]), query_params=STRICT))
    causes = said["details"].get("causes") if "details" in said else None
    if not row["field"]:
        assert (causes, said["code"]) == (None, 400)
        assert said["message"].endswith(row["says"])
        return
    assert causes
    found = [one["message"] for one in causes if one["field"] == row["field"]]
    assert any(words.endswith(row["says"]) for words in found), causes


def test_128_namespaces_are_the_most(pools: Any) -> None:
    many = [{"name": f"n{number}", "size": "32Mi"} for number in range(129)]
    said = refused(lambda: pools.create(body={**GOOD, "spec": {**GOOD["spec"], "namespaces": many}}))
    assert said["details"]["causes"][0]["message"] == "Too many: 129: must have at most 128 items"
    made = pools.create(
        body={**GOOD, "spec": {**GOOD["spec"], "namespaces": many[:128]}}, query_params=[("dryRun", "All")]
    )
    assert len(made.spec.namespaces) == 128


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (SIZE, "2Gi", "the size cannot be changed"),
        ("spec.source.emulated.capacity", "16Gi", "a pool keeps its memory"),
        ("spec.source.emulated.directory", "/elsewhere", "a pool keeps its memory"),
    ],
)
def test_what_cannot_be_changed(pools: Any, pool: Any, path: str, value: Any, words: str) -> None:
    body = bad_input.changed(GOOD, f"{path}: {value}")
    body["metadata"]["resourceVersion"] = pool.metadata.resourceVersion
    assert words in refusal(lambda: pools.replace(body=body))


def test_what_can_be_changed(pools: Any, pool: Any) -> None:
    body = bad_input.changed(GOOD, f"{SIZE}: 4096Mi")  # the same, written otherwise
    body["metadata"]["resourceVersion"] = pool.metadata.resourceVersion
    body["spec"]["namespaces"][0] |= {"sharesPerNode": 3, "access": {"kubernetesNamespaces": []}}
    body["spec"]["namespaces"][1:] = [{"name": "team-c", "size": "64Mi"}]
    found = pools.replace(body=body).to_dict()["spec"]["namespaces"]
    assert [(one["name"], one["sharesPerNode"]) for one in found] == [("team-a", 3), ("team-c", 64)]


def test_a_pool_may_have_no_namespaces(pools: Any) -> None:
    made = pools.create(body=bad_input.changed(GOOD, "spec.namespaces: null"))
    assert "namespaces" not in made.to_dict()["spec"]
    pools.server_side_apply(body=bad_input.changed(GOOD, "spec.namespaces: []"), name="rack1", field_manager="kubectl")
    pools.server_side_apply(body=GOOD, name="rack1", field_manager="kubectl", force_conflicts=True)
    pools.server_side_apply(body=bad_input.changed(GOOD, "spec.namespaces: []"), name="rack1", field_manager="kubectl")
    pools.delete(name="rack1")


def test_a_range_never_moves_and_a_node_keeps_its_host_id(client: Any) -> None:
    ranges = client.resources.get(api_version="gismo.io/v1alpha1", kind="GismoNamespace")
    body: dict[str, Any] = {
        "apiVersion": "gismo.io/v1alpha1",
        "kind": "GismoNamespace",
        "metadata": {"name": "rack1.team-a"},
        "spec": {
            "pool": "rack1",
            "namespace": "team-a",
            "offsetBytes": 2097152,
            "sizeBytes": 4294967296,
            "storeUUID": "00000000-0000-4000-8000-000000000000",
            "coherence": "hardware",
            "sharesPerNode": 64,
            "runtimeInjection": "UserSite",
            "reclaimPolicy": "Delete",
            "access": {"kubernetesNamespaces": []},
            "state": "Active",
        },
    }
    made = ranges.create(body=body)
    body["metadata"]["resourceVersion"] = made.metadata.resourceVersion
    moved = {**body, "spec": {**body["spec"], "offsetBytes": 4194304}}
    assert "a range never moves" in refusal(lambda: ranges.replace(body=moved))
    ranges.delete(name="rack1.team-a")

    nodes = client.resources.get(api_version="gismo.io/v1alpha1", kind="GismoNode")
    body = {
        "apiVersion": "gismo.io/v1alpha1",
        "kind": "GismoNode",
        "metadata": {"name": "rack1.a"},
        "spec": {
            "pool": "rack1",
            "node": "a",
            "hostId": 0,
            "layoutVersion": 1,
            "source": {"emulated": {"capacity": "1Gi"}},
        },
    }
    made = nodes.create(body=body)
    body["metadata"]["resourceVersion"] = made.metadata.resourceVersion
    other = {**body, "spec": {**body["spec"], "hostId": 1}}
    assert "a node keeps its host id" in refusal(lambda: nodes.replace(body=other))
    said = {key: body[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": "rack1.a"}}
    for taken, may in ((1, False), (0, True)):
        nodes.status.server_side_apply(
            body={**said, "status": {"takenHostId": taken}}, name="rack1.a", field_manager="gismo-agent"
        )
        other["metadata"] = {"name": "rack1.a", "resourceVersion": nodes.get(name="rack1.a").metadata.resourceVersion}
        if may:
            assert nodes.replace(body=other).spec.hostId == 1
        else:
            assert "unless its status says" in refusal(lambda: nodes.replace(body=other))
    assert "should be less than or equal to 63" in refusal(
        lambda: nodes.create(body={**body, "metadata": {"name": "rack1.b"}, "spec": {**body["spec"], "hostId": 64}})
    )
    nodes.delete(name="rack1.a")


def test_explain_says_something_of_every_field(control_plane: Any, client: Any) -> None:
    import ssl
    import urllib.request

    context = ssl.create_default_context(cafile=str(control_plane.ca_file))
    request = urllib.request.Request(
        f"{control_plane.url}/openapi/v3/apis/gismo.io/v1alpha1",
        headers={"Authorization": f"Bearer {control_plane.token}"},
    )
    with urllib.request.urlopen(request, context=context, timeout=30) as answer:
        assert b"Whose pods may have a share" in answer.read()
