"""What a killed runc left frozen is thawed, or a cluster could not be taken away."""

from __future__ import annotations

from pathlib import Path

from e2e import cluster


def test_all_below_a_node_is_thawed(tmp_path: Path) -> None:
    pod = tmp_path / "node" / "kubelet.slice" / "pod"
    pod.mkdir(parents=True)
    for group, state in ((pod, "FROZEN"), (pod.parent, "FREEZING"), (tmp_path, "FROZEN")):
        (group / "freezer.state").write_text(f"{state}\n")
    cluster.thaw(tmp_path / "node")
    assert (pod / "freezer.state").read_text() == "THAWED"
    assert (pod.parent / "freezer.state").read_text() == "THAWED"
    assert (tmp_path / "freezer.state").read_text() == "FROZEN\n", "another's"
    cluster.thaw(tmp_path / "nothing")  # where cgroups are of version 2
