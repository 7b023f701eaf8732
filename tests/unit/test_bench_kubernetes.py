"""make bench-kubernetes: which groups run, and what becomes of one that cannot run or fails."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from bench_kubernetes import __main__ as bench
from bench_kubernetes import on_cluster
from bench_kubernetes.group import Group, NotToBeMeasured, row
from gismo_core.bench.result import Measurement


def _group(name: str, *, on_cluster: bool = False) -> Group:
    def measure(samples: int) -> Sequence[Measurement]:
        return [Measurement(name, [2.0] * samples)]

    return Group(name, (row(name, "s", "what", 3, 1),), measure, on_cluster)


def test_rows_of_a_group_are_judged() -> None:
    (result,) = bench.measured([_group("one")], None, 3).results
    assert (result.row.name, result.value, result.verdict, len(result.samples)) == ("one", 2.0, "reached", 3)


def test_a_group_that_fails_is_told_and_the_next_is_measured() -> None:
    def fails(samples: int) -> Sequence[Measurement]:
        raise RuntimeError("on purpose")

    report = bench.measured([replace(_group("one"), measure=fails), _group("other")], None, 3)
    assert report.failed == [{"name": "one", "why": "RuntimeError: on purpose"}]
    assert [result.row.name for result in report.results] == ["other"]


def test_without_a_cluster_its_rows_are_skipped_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> contextlib.AbstractContextManager[None]:
        raise NotToBeMeasured("needs root")

    monkeypatch.setattr(on_cluster, "on_cluster", none)
    groups = [_group("one"), _group("two", on_cluster=True), _group("three", on_cluster=True)]
    report = bench.measured(groups, None, 3)
    assert [result.row.name for result in report.results] == ["one"]
    assert report.skipped == [{"name": name, "why": "needs root"} for name in ("two", "three")]


def test_the_cluster_is_brought_up_once_and_taken_down_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @contextlib.contextmanager
    def there() -> Iterator[None]:
        seen.append("up")
        yield
        seen.append("down")

    monkeypatch.setattr(on_cluster, "on_cluster", there)
    bench.measured([_group("one", on_cluster=True), _group("two", on_cluster=True)], None, 3)
    assert seen == ["up", "down"]


def test_names_of_rows_are_those_of_the_issue_and_no_other_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--list"]) == 0
    named = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert named == [
        *("deviceplugin.allocate", "deviceplugin.prestart", "deviceplugin.reregister"),
        *("operator.ready", "operator.repair", "e2e.first_get", "e2e.remote_get"),
    ]
    with pytest.raises(SystemExit):
        bench.main(["--only", "nothing.like.this"])


def test_json_is_in_the_form_of_gismo_bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "GROUPS", (_group("one"),))
    assert bench.main(["--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["results"][0].keys() == {
        *("name", "unit", "value", "baseline", "baseline_name", "ratio", "better", "samples")
    }
    assert said["machine"]["cores"] >= 1
