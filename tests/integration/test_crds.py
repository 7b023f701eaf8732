"""What the API server takes and what it refuses, in which words: our CRDs on a real one."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

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


@pytest.fixture(scope="module")
def pools(client: Any) -> Any:
    return client.resources.get(api_version="gismo.io/v1alpha1", kind="GismoPool")


@pytest.fixture
def pool(pools: Any) -> Iterator[Any]:
    yield pools.create(body=GOOD)
    pools.delete(name="rack1")


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with one thing otherwise; path as of "spec.namespaces.0.size"."""
    made = deepcopy(GOOD)
    *way, last = path.split(".")
    here: Any = made
    for step in way:
        here = here[int(step)] if step.isdecimal() else here.setdefault(step, {})
    if value is None:
        here.pop(last)
    else:
        here[int(last) if last.isdecimal() else last] = value
    return made


def refusal(act: Any) -> str:
    from kubernetes.client.exceptions import ApiException

    with pytest.raises(ApiException) as caught:
        act()
    assert caught.value.status in (409, 422), caught.value
    return str(caught.value.body)


def test_a_good_one_is_taken_and_has_the_defaults(pool: Any) -> None:
    spec = pool.to_dict()["spec"]
    assert spec["source"]["emulated"]["directory"] == "/var/lib/gismo/emulated"
    assert spec["runtimeInjection"] == "UserSite"
    first, second = spec["namespaces"]
    assert (first["sharesPerNode"], first["reclaimPolicy"]) == (64, "Delete")
    assert second["access"] == {"kubernetesNamespaces": []}


SIZE = "spec.namespaces.0.size"
WRONG = {
    "size 0": (SIZE, 0, "must be at least 32Mi"),
    "size negative": (SIZE, "-2Mi", "must be at least 32Mi"),
    "size with a fraction": (SIZE, "4.5Gi", "must be written as a whole number: 4608Mi, not 4.5Gi"),
    "size no quantity": (SIZE, "four", "must be a size such as 4Gi or 512Mi"),
    "size odd": (SIZE, "33Mi", "must be a multiple of 2Mi"),
    "size small": (SIZE, "16Mi", "must be at least 32Mi"),
    "size endless": (SIZE, "1" * 21, "Too long"),
    "sum": (SIZE, "8Gi", "the namespaces are larger than the capacity together"),
    "capacity 0": ("spec.source.emulated.capacity", "0", "must be at least 32Mi"),
    "capacity odd": ("spec.source.emulated.capacity", "8589934593", "must be a multiple of 2Mi"),
    "no source": ("spec.source", {}, "say exactly one of dax and emulated"),
    "two sources": (
        "spec.source",
        {"emulated": {"capacity": "8Gi"}, "dax": {"match": {"size": "8Gi"}}},
        "say exactly one of dax and emulated",
    ),
    "dax without coherence": (
        "spec.source",
        {"dax": {"match": {"size": "8Gi"}}},
        "say coherence: hardware or software",
    ),
    "dax without match": ("spec.source", {"dax": {"match": {}}}, "say at least one of size, serial, region, uuid"),
    "emulated software": ("spec.coherence", "software", "emulated memory is one machine's"),
    "coherence unknown": ("spec.coherence", "maybe", "Unsupported value"),
    "directory relative": ("spec.source.emulated.directory", "here", "should match"),
    "name with dots": ("spec.namespaces.0.name", "a.b", "should match"),
    "name upper case": ("spec.namespaces.0.name", "Team", "should match"),
    "name of 64": ("spec.namespaces.0.name", "a" * 64, "Too long"),
    "name ends in gpu": ("spec.namespaces.0.name", "my-gpu", "KubeRay takes such a resource for a GPU"),
    "names together": ("spec.namespaces.0.name", "a" * 58, "at most 62 characters together"),
    "name twice": ("spec.namespaces.1.name", "team-a", "Duplicate value"),
    "shares 0": ("spec.namespaces.0.sharesPerNode", 0, "greater than or equal to 1"),
    "shares 257": ("spec.namespaces.0.sharesPerNode", 257, "less than or equal to 256"),
    "policy unknown": ("spec.namespaces.0.reclaimPolicy", "Keep", "Unsupported value"),
    "kubernetes namespace twice": ("spec.namespaces.0.access.kubernetesNamespaces", ["a", "a"], "Duplicate value"),
    "pool with dots": ("metadata.name", "rack.1", "must be a DNS label without dots"),
    "pool with 61 characters": ("metadata.name", "r" * 61, "at most 60 characters"),
    "129 namespaces": (
        "spec.namespaces",
        [{"name": f"n{number}", "size": "32Mi"} for number in range(129)],
        "must have at most 128 items",
    ),
    "injection unknown": ("spec.runtimeInjection", "Magic", "Unsupported value"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused_and_in_which_words(pools: Any, case: str) -> None:
    path, value, words = WRONG[case]
    assert words in refusal(lambda: pools.create(body=changed(path, value)))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (SIZE, "2Gi", "the size cannot be changed"),
        ("spec.source.emulated.capacity", "16Gi", "a pool keeps its memory"),
        ("spec.source.emulated.directory", "/elsewhere", "a pool keeps its memory"),
    ],
)
def test_what_cannot_be_changed(pools: Any, pool: Any, path: str, value: Any, words: str) -> None:
    body = changed(path, value)
    body["metadata"]["resourceVersion"] = pool.metadata.resourceVersion
    assert words in refusal(lambda: pools.replace(body=body))


def test_what_can_be_changed(pools: Any, pool: Any) -> None:
    body = changed(SIZE, "4096Mi")  # the same, written otherwise
    body["metadata"]["resourceVersion"] = pool.metadata.resourceVersion
    body["spec"]["namespaces"][0] |= {"sharesPerNode": 3, "access": {"kubernetesNamespaces": []}}
    body["spec"]["namespaces"][1:] = [{"name": "team-c", "size": "64Mi"}]
    found = pools.replace(body=body).to_dict()["spec"]["namespaces"]
    assert [(one["name"], one["sharesPerNode"]) for one in found] == [("team-a", 3), ("team-c", 64)]


def test_a_pool_may_have_no_namespaces(pools: Any) -> None:
    made = pools.create(body=changed("spec.namespaces", None))
    assert "namespaces" not in made.to_dict()["spec"]
    pools.server_side_apply(body=changed("spec.namespaces", []), name="rack1", field_manager="kubectl")
    pools.server_side_apply(body=GOOD, name="rack1", field_manager="kubectl", force_conflicts=True)
    pools.server_side_apply(body=changed("spec.namespaces", []), name="rack1", field_manager="kubectl")
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
