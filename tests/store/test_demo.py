"""The demo, quick: what it says, that it notices what goes wrong, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gismo_core.cli import main as gismo
from gismo_core.demo import show
from gismo_core.demo.content import Content, make_tag, object_name, split_tag
from gismo_core.demo.plan import GIB, SHM, make_plan
from gismo_core.demo.report import Report
from gismo_core.demo.screen import PlainScreen, SilentScreen

ACTS = ("machine", "format", "hosts", "traffic", "one_copy", "deaths", "fsck", "emptied", "fsck_empty", "cycle")


def left_behind(pid: int) -> list[Path]:
    """Directories that the demo of this process made and did not remove."""
    return list(SHM.glob(f"gismo-demo-{pid}-*"))


def workers_of(pid: int) -> list[int]:
    """Children of a process."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    """For a demo inside this process: what it made is gone, and so are its processes."""
    children = set(workers_of(os.getpid()))
    yield
    assert left_behind(os.getpid()) == []
    assert set(workers_of(os.getpid())) <= children


def start(*arguments: str) -> subprocess.Popen[str]:
    """`python -m gismo_core.demo …`, a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    return subprocess.Popen(
        [sys.executable, "-m", "gismo_core.demo", "store", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_the_document_says_that_all_held() -> None:
    demo = start("--seconds", "3", "--json")
    out, err = demo.communicate()
    assert left_behind(demo.pid) == []
    assert demo.returncode == 0, err
    seen = json.loads(out)
    assert seen["ok"]
    assert seen["error"] is None
    assert [act for act in ACTS if act not in seen] == []
    assert len(seen["checks"]) >= 18
    assert all(check["ok"] for check in seen["checks"])
    assert len(set(seen["hosts"]["lanes"])) == 3
    for host in seen["traffic"]["hosts"]:
        assert host["puts_per_s"] > 0
        assert host["gets_per_s"] > 0
    one = seen["one_copy"]
    assert len(one["get_us"]) == 3
    assert one["used_bytes"]["after_gets"] <= one["used_bytes"]["after_put"]
    deaths = seen["deaths"]
    assert deaths["half_written_objects"] == 64
    assert deaths["freed_s"] < 10
    assert deaths["frozen_ops"] == 0
    assert deaths["thawed_ops"] > 0
    assert all(found > 0 for found in deaths["others"]["meanwhile"].values())
    assert deaths["kept_of_the_dead"] == deaths["sealed_by_the_dead"] > 0
    assert seen["deaths"]["wrong_objects"] == 0
    assert seen["fsck"]["leaked_bytes"] == 0
    assert seen["fsck"]["payloads_verified"] == seen["fsck"]["objects"] > 0
    assert seen["emptied"]["deleted_from_another_host"] == deaths["kept_of_the_dead"]
    assert all(seen["cycle"]["python_us"][step] > 0 for step in ("put", "get", "release", "delete", "cycle"))
    assert seen["seconds"] < 60


def test_a_person_reads_a_summary_and_what_to_type_next() -> None:
    demo = start("--seconds", "1")
    out, err = demo.communicate()
    assert left_behind(demo.pid) == []
    assert demo.returncode == 0, out + err
    for words in (
        "puts/s",
        "one copy",
        "SIGKILL",
        "fsck --verify",
        "0 B leaked",
        "Summary",
        "Next: ",
        "expectations held",
    ):
        assert words in out
    assert "FAILED" not in out
    assert "\x1b" not in out


@pytest.mark.usefixtures("nothing_stays")
def test_readers_notice_bytes_that_are_not_the_writers(capfd: pytest.CaptureFixture[str]) -> None:
    report = show.run(make_plan(1, sabotage=True), PlainScreen())
    assert not report.ok
    assert any("held what its writer put" in check.what for check in report.failed)
    assert "FAILED" in capfd.readouterr().out


@pytest.mark.usefixtures("nothing_stays")
def test_a_worker_that_dies_unasked_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    from gismo_core.demo import traffic

    def kill_one(*_: object) -> None:
        os.kill(workers_of(os.getpid())[-1], signal.SIGKILL)

    monkeypatch.setattr(traffic, "play", kill_one)
    report = show.run(make_plan(1), SilentScreen())
    assert not report.ok
    assert "ended early with status -9" in str(report.error)


@pytest.mark.usefixtures("nothing_stays")
def test_too_slow_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    report = show.run(replace(make_plan(1), limit_s=0.8), SilentScreen())
    assert "not done after 1 s" in str(report.error)


def has_store(pid: int) -> bool:
    """Is it past its imports, in which nobody can catch a signal?"""
    try:
        return "/dev/shm/gismo-" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing(number: signal.Signals) -> None:
    demo = start("--seconds", "30")
    until_s = time.monotonic() + 60
    while (
        not (len(workers := workers_of(demo.pid)) == 6 and all(map(has_store, workers))) and time.monotonic() < until_s
    ):
        time.sleep(0.05)
    assert all(map(has_store, workers))
    time.sleep(1.0)
    assert len(left_behind(demo.pid)) == 1
    os.killpg(demo.pid, number)  # a terminal sends it to the whole group
    _, err = demo.communicate()
    assert demo.returncode == 130
    assert left_behind(demo.pid) == []
    assert "interrupted" in err
    assert "Traceback" not in err
    assert len(workers) == 6
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_machine_without_room_is_told(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from gismo_core.demo import plan

    monkeypatch.setattr(plan, "_free_bytes", lambda path: 16 << 20)
    assert gismo(["demo", "store", "--seconds", "1"]) == 1
    assert "--shm-size" in capfd.readouterr().err


@pytest.mark.parametrize("free_mib", [64, 100, 300, 1024, 2048, 100_000])
def test_the_plan_fits_the_machine(monkeypatch: pytest.MonkeyPatch, free_mib: int) -> None:
    from gismo_core.demo import plan

    monkeypatch.setattr(plan, "_free_bytes", lambda path: free_mib << 20)
    made = make_plan(32)
    assert made.store_bytes < min(free_mib << 20, 2 * GIB)
    assert 2 * made.large_bytes <= made.store_bytes
    assert made.held_objects * made.held_bytes <= made.store_bytes // 8
    # mean size of a writer's object: about largest / ln(largest / 64)
    assert made.hosts * made.places * made.largest_bytes / 8 < made.store_bytes / 3


def test_content_is_told_from_other_content() -> None:
    content = Content.make(1 << 16, 1)
    sizes = []
    for serial in range(200):
        tag = make_tag(2, serial)
        assert split_tag(tag) == (2, serial)
        data = bytearray(content.of(tag))
        sizes.append(len(data))
        assert content.matches(tag, memoryview(data))
        assert not content.matches(tag, memoryview(data)[:-1])
        assert not content.matches(make_tag(1, serial), memoryview(data))
        data[-1] ^= 1
        assert not content.matches(tag, memoryview(data))
    assert 64 <= min(sizes) < 1000
    assert 1 << 15 < max(sizes) <= 1 << 16
    large = bytearray(content.large(500_000))
    assert content.matches_large(memoryview(large)[128:], 128)
    assert not content.matches_large(memoryview(large)[128:], 64)
    large[400_000] ^= 1
    assert not content.matches_large(memoryview(large)[128:], 128)
    assert object_name(0, 1) != object_name(1, 0)


def test_a_report_that_checked_nothing_is_not_ok() -> None:
    assert not Report().ok


def test_a_report_names_what_did_not_hold() -> None:
    report = Report()
    report.expect("a", True, "")
    held = report.ok
    report.expect("b", False, "")
    assert held
    assert report.document()["ok"] is False
    assert [check.what for check in report.failed] == ["b"]


def test_a_report_with_an_error_is_not_ok() -> None:
    report = Report(error="x")
    report.expect("a", True, "")
    assert not report.ok
