"""What an agent says of a pool: all that was found, in the API's words, and nothing twice."""

from __future__ import annotations

from gismo_deviceplugin.pool.member import Failure, Quarantined, Report
from gismo_deviceplugin.status import differs, status
from gismo_operator.api.v1alpha1 import NodeStatus

NOW = "2026-01-01T00:00:00Z"
REPORT = Report(
    layout_version=7,
    capacity_bytes=1 << 30,
    boot_id="b",
    nonce="n",
    same_memory=True,
    ready=("one",),
    refused=frozenset({"s2"}),
    quarantined=(Quarantined("two", "s3", 2 << 20, 1 << 20, ("team/pod",)), Quarantined("two", "s1", 4 << 20, 1 << 20)),
)


def test_it_is_what_the_operator_reads() -> None:
    read = NodeStatus.model_validate(status(REPORT, {}, NOW, 3))
    assert (read.layout_version, read.ready, read.refused, read.taken_host_id) == (7, 1, ["s2"], None)
    assert [
        (one.store_uuid, one.namespace, one.offset_bytes, one.size_bytes, one.holders) for one in read.quarantined
    ] == [
        ("s1", "two", 4 << 20, 1 << 20, []),
        ("s3", "two", 2 << 20, 1 << 20, ["team/pod"]),
    ]
    taken = Report(None, 1 << 30, "b", None, None, failures=(Failure("", "HostIdTaken", "why"),), taken_host_id=0)
    read = NodeStatus.model_validate(status(taken, {}, NOW, 3))
    assert (read.taken_host_id, read.layout_version, read.conditions[0].reason) == (0, None, "HostIdTaken")


def test_no_more_of_them_than_the_api_takes() -> None:
    many = [f"{number:036}" for number in range(300)]
    kept = tuple(Quarantined("two", one, 0, 1) for one in many)
    made = status(
        Report(1, 1, "b", "n", True, released=frozenset(many), refused=frozenset(many), quarantined=kept), {}, NOW, 1
    )
    assert [len(made[name]) for name in ("released", "refused", "quarantined")] == [256, 128, 128]


def test_what_was_said_is_not_said_again() -> None:
    made = status(REPORT, {}, NOW, 3)
    assert not differs(made, made)
    assert differs({}, made)
    assert differs({**made, "quarantined": []}, made)
    # Server-side apply takes a list away with its last item.
    without = {key: value for key, value in made.items() if key != "inUse"}
    assert made["inUse"] == []
    assert not differs(without, made)
    assert differs({**made, "inUse": [{"namespace": "one", "holders": ["x"]}]}, made)
