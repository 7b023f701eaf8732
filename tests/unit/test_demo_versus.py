"""The demo of Ray: how large it is on which machine, and its picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from gismo_core.demo.report import DemoError
from gismo_core.demo.versus.acts import acts
from gismo_core.demo.versus.plan import hurried, make_plan
from gismo_core.demo.versus.plot import Bar, draw, seconds_text

MIB, GIB = 1 << 20, 1 << 30


def test_a_large_machine_shows_a_gib() -> None:
    plan = make_plan(64 * GIB, 32 * GIB)
    assert plan.object_bytes == GIB
    assert plan.partition_bytes == 200_000_000
    assert plan.shape.nodes == 4


@pytest.mark.parametrize("memory_gib", [1, 4, 8, 15, 24])
def test_it_fits_the_machine(memory_gib: int) -> None:
    plan = make_plan(memory_gib * GIB, memory_gib * GIB // 2)
    for store in (plan.shape.pool_bytes, plan.shape.nodes * plan.shape.plasma_bytes):
        assert store <= memory_gib * GIB // 2
    # The shuffle's output, the sort's and what is on the way have room in either.
    assert plan.partitions * plan.partition_bytes < plan.shape.nodes * plan.shape.plasma_bytes
    assert plan.object_bytes < plan.shape.plasma_bytes


@pytest.mark.parametrize("memory_gib", [1, 24, 64])
def test_in_a_hurry_the_long_jobs_are_half_as_large_and_all_count_once(memory_gib: int) -> None:
    plan = make_plan(memory_gib * GIB, memory_gib * GIB // 2)
    short = hurried(plan)
    assert short.shape == plan.shape
    assert (short.object_bytes, short.partitions) == (plan.object_bytes, plan.partitions), "as large, so as telling"
    assert plan.partition_bytes // 2 - 16 < short.partition_bytes <= plan.partition_bytes // 2
    assert short.partition_bytes % 16 == 0, "the shuffle's rows are whole"
    assert short.dataset_bytes == plan.dataset_bytes // 2
    assert 1 <= short.batches <= (plan.batches + 1) // 2
    assert short.repeats == 1 < plan.repeats


def test_a_machine_that_is_too_small_is_told_what_to_do() -> None:
    with pytest.raises(DemoError, match="gismo demo store"):
        make_plan(512 * MIB, 512 * MIB)
    with pytest.raises(DemoError, match="shm-size"):
        make_plan(16 * GIB, 64 * MIB)


def test_every_act_of_the_issue_is_there() -> None:
    names = [act.name for act in acts(make_plan(24 * GIB, 12 * GIB))]
    assert names == ["get", "get_read", "broadcast", "shuffle", "sort", "pipeline"]


def test_the_picture_is_svg_with_all_figures() -> None:
    text = draw([Bar("get <1 GiB>", 0.9, 0.003), Bar("sort", 12.0, 5.0)], "title & more", "here")
    root = ElementTree.fromstring(text)
    words = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    assert "get <1 GiB>" in words
    assert any(word.startswith("3 ms") and "300x" in word for word in words)
    assert any("2.4x" in word for word in words)
    bars = [element for element in root.iter() if element.tag.endswith("rect")]
    assert len(bars) == 1 + 4 + 2


def test_the_picture_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no act"):
        draw([], "", "")


@pytest.mark.parametrize(("seconds", "text"), [(12.34, "12.3 s"), (0.5, "500 ms"), (0.00123, "1.23 ms")])
def test_times_are_written_with_what_matters(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
