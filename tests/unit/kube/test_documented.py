"""docs/kubernetes.md names every metric that there is, with its type and labels, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from gismo_deviceplugin import metrics as of_agent
from gismo_operator import metrics as of_operator

_DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "kubernetes.md"


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Name → type and labels."""
    found = {}
    for line in _DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" |")]
        if len(cells) == 4 and cells[1] in ("gauge", "counter", "histogram"):
            labels = frozenset(part.strip() for part in cells[2].split(",") if part.strip())
            found.update(dict.fromkeys(re.findall(r"`(gismo_\w+)`", cells[0]), (cells[1], labels)))
    return found


def exposed(registry: CollectorRegistry) -> dict[str, tuple[str, frozenset[str] | None]]:
    """Labels: None where no sample is there to tell them."""
    found = {}
    for family in registry.collect():
        if family.name.startswith("process_"):
            continue
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        samples = [one for one in family.samples if not one.name.endswith("_bucket")]
        labels = frozenset(samples[0].labels) if samples else None
        found[family.name + suffix] = ("gauge" if family.type == "info" else family.type, labels)
    return found


def all_exposed() -> dict[str, tuple[str, frozenset[str] | None]]:
    operator, agent = of_operator.Metrics(lambda: True, lambda: 0), of_agent.Metrics()
    agent.request("Allocate", "OK", 0.1)
    return {**exposed(operator.registry), **exposed(agent.registry)}


def test_every_metric_is_documented_and_no_other() -> None:
    assert set(documented()) == set(all_exposed())


@pytest.mark.parametrize("name", sorted(all_exposed()))
def test_type_and_labels(name: str) -> None:
    kind, labels = all_exposed()[name]
    assert documented()[name][0] == kind
    if labels is not None:
        assert documented()[name][1] == labels


def test_names_are_as_prometheus_wants_them() -> None:
    for name, (kind, labels) in documented().items():
        assert name.endswith("_total") == (kind == "counter")
        assert not labels & {"namespace", "node", "pod", "container", "instance", "job"}, "those are the target's"
