"""gismo litmus: two sides find each other, test, tell what they found, and leave nothing behind, whatever happens to one of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gismo_core
from gismo_core import LitmusOutcome, ObjectState, _native, litmus
from gismo_core.cli import exits, main
from gismo_core.records import LITMUS_TESTS
from gismo_core.testing import eventually

ROOT = Path(__file__).resolve().parents[2]
ALL = list(LITMUS_TESTS)
ENDLESS = ("--rounds", 2**40, "--seconds", 600)
LIMIT_S = 100


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def gismo(capfd: pytest.CaptureFixture[str], shm: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """gismo(*arguments) inside this process, as a host of its own."""
    monkeypatch.setenv("GISMO_STATE_DIR", str(shm / "state"))
    monkeypatch.delenv("GISMO_STORE", raising=False)

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """start(*arguments): the same as a process, which does not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: object) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        words = [sys.executable, "-m", "gismo_core", *map(str, arguments)]
        started.append(
            subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def nothing_left(path: str) -> None:
    """No object, no lane that is taken."""
    with gismo_core.open(path, read_only=True) as looking:
        assert [one for one in looking.objects() if one.state != ObjectState.DELETED] == []
        assert {host.state.name for host in looking.hosts()} <= {"QUIET"}


def folders() -> set[str]:
    return {entry for entry in os.listdir("/dev/shm") if entry.startswith("gismo-litmus-")}


def is_at_it(path: str, sides: int) -> bool:
    with gismo_core.open(path, read_only=True) as looking:
        return sum((one.name or "").startswith("gismo.litmus.") for one in looking.objects()) == sides


@pytest.mark.parametrize("coherence", ["software", "hardware"])
def test_alone(gismo: Callable[..., Result], make_store: Callable[..., str], coherence: str) -> None:
    path = make_store(coherence=coherence)
    before = folders()
    done = gismo("litmus", path, "--alone", "--rounds", 300, "--seconds", 20, "--json")
    assert done.code == exits.OK, done.err
    found = done.document
    assert (found["verdict"], found["outcome"]) == ("not meaningful: emulated", "not_meaningful")
    assert found["emulated"] == ["the medium is a file", "both sides are one machine"]
    assert [one["name"] for one in found["tests"]] == ALL
    assert all(one["rounds"] >= 250 and one["violations"] == 0 for one in found["tests"])
    assert {found["host_id"], found["partner_host"]} == {0, 1}
    assert found["recorded"]
    nothing_left(path)
    assert folders() == before


def test_the_verdict_is_shown(gismo: Callable[..., Result], store_path: str) -> None:
    assert gismo("info", store_path, "--json").document["litmus"] == []
    assert "not run" in gismo("doctor", store_path).out
    shown = gismo("litmus", store_path, "--alone", "--only", "A3.tearing", "--only", "A1.dekker", "--rounds", 50)
    assert shown.code == exits.OK, shown.err
    assert re.search(r"^A1.dekker +50 +0 ", shown.out, re.MULTILINE)
    assert "A1.message" not in shown.out
    assert "not meaningful: emulated (the medium is a file; both sides are one machine)" in shown.out
    assert "host 0: not meaningful: emulated (with host 1, " in gismo("info", store_path).out
    for one in gismo("info", store_path, "--json").document["litmus"]:
        assert (one["outcome"], one["partner_host"]) == ("not_meaningful", 1 - one["host_id"])
        assert [test["name"] for test in one["tests"]] == ["A1.dekker", "A3.tearing"]
    assert "not meaningful: emulated" in gismo("hosts", store_path).out
    assert gismo("hosts", store_path, "--json").document[1]["litmus"]["partner_host"] == 0
    checks = gismo("doctor", store_path, "--json").document["checks"]
    assert [one["status"] for one in checks if one["name"] == "litmus"] == ["ok", "ok"]


def test_two_hosts_that_find_each_other(
    gismo: Callable[..., Result], start: Callable[..., subprocess.Popen[str]], store_path: str, shm: Path
) -> None:
    """What is run is what the host with the lower id was told; the other's words do not count."""
    with gismo_core.open(store_path, state_dir=shm / "state"), gismo_core.open(store_path, state_dir=shm / "other"):
        other = start(
            "litmus", store_path, "--state-dir", shm / "other", "--session", "s", "--only", "A3.tearing", "--json"
        )
        here = gismo("litmus", store_path, "--session", "s", "--only", "A1.message", "--rounds", 100, "--json")
        out, err = other.communicate(timeout=LIMIT_S)
        assert (here.code, other.returncode) == (exits.OK, exits.OK), here.err + err
        there = json.loads(out)
        assert [[one["name"] for one in found["tests"]] for found in (here.document, there)] == [["A1.message"]] * 2
        assert here.document["tests"][0]["rounds"] == there["tests"][0]["rounds"]
        assert (here.document["host_id"], there["host_id"]) == (0, 1)
    nothing_left(store_path)


def test_flaws_are_found(gismo: Callable[..., Result], store_path: str) -> None:
    done = gismo(
        "litmus", store_path, "--alone", "--flawed", "--only", "A1.dekker", "--only", "A1.message", "--seconds", 4
    )
    assert done.code == exits.ERROR, done.out
    assert "not meaningful: emulated (violated: A1." in done.out
    assert "violated: A1." in gismo("hosts", store_path).out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--rounds", "0"),
        ("--rounds", "many"),
        ("--seconds", "0"),
        ("--seconds", "nan"),
        ("--wait", "-1"),
        ("--only", "A4.nonsense"),
        ("--session", "x" * 101),
        ("--session", "a\nb"),
        ("--alone", "--host-id", "1"),
        ("--alone", "--state-dir", "/dev/shm/x"),
        ("--alone", "--session", "x"),
        ("another", "argument"),
    ],
)
def test_bad_arguments(gismo: Callable[..., Result], store_path: str, arguments: tuple[str, ...]) -> None:
    assert gismo("litmus", store_path, *arguments).code == exits.USAGE
    nothing_left(store_path)


def test_nobody_comes(gismo: Callable[..., Result], store_path: str) -> None:
    begin_s = time.monotonic()
    done = gismo("litmus", store_path, "--wait", "0.2", "--json")
    assert done.code == exits.NOT_FOUND
    assert time.monotonic() - begin_s < 30
    assert "on a second host" in json.loads(done.err)["error"]["message"]
    assert json.loads(done.err)["error"]["type"] == "PartnerMissing"
    nothing_left(store_path)


def test_what_is_no_store_or_has_no_room(
    gismo: Callable[..., Result], make_store: Callable[..., str], shm: Path
) -> None:
    (shm / "text").write_text("hello " * 10_000)
    for words in ((), ("--alone",)):
        assert gismo("litmus", shm / "text", *words).code == exits.NOT_A_STORE
        assert gismo("litmus", shm / "nothing", *words).code == exits.NOT_A_STORE
    lonely = gismo("litmus", make_store(max_hosts=1), "--alone", "--wait", 60)
    assert lonely.code == exits.ERROR
    assert "all 1 host ids of the store are taken" in lonely.err


def test_a_store_that_may_only_be_read(gismo: Callable[..., Result], store_path: str) -> None:
    """One of a later version, with a feature that only readers need not know."""
    with open(store_path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        for at in (0, size - 4096):
            file.seek(at)
            block = bytearray(file.read(4096))
            block[24] |= 1
            block[184:188] = bytes(4)
            crc = _native.load().slow.crc32c(0, bytes(block), 4096)
            block[184:188] = crc.to_bytes(4, "little")
            file.seek(at)
            file.write(block)
    assert gismo("hosts", store_path).code == exits.OK
    for words in ((), ("--alone",)):
        refused = gismo("litmus", store_path, *words)
        assert refused.code in (exits.NOT_A_STORE, exits.REFUSED), refused.err


def test_the_other_side_dies(
    gismo: Callable[..., Result],
    start: Callable[..., subprocess.Popen[str]],
    store_path: str,
    shm: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one that lives says so soon; what the dead left goes when its host is at it again."""
    monkeypatch.setattr(litmus, "SILENCE_S", 1.5)
    dying = start("litmus", store_path, "--state-dir", shm / "other", *ENDLESS)
    killer = subprocess.Popen(["sh", "-c", f"sleep 3; kill -KILL {dying.pid}"])
    done = gismo("litmus", store_path, *ENDLESS, "--json")
    assert killer.wait() == 0
    assert dying.wait() == -signal.SIGKILL
    assert done.code == exits.ERROR
    assert json.loads(done.err)["error"]["type"] == "PartnerLost"
    assert "was killed or stopped" in json.loads(done.err)["error"]["message"]
    again = gismo("litmus", store_path, "--state-dir", shm / "other", "--wait", "0.1")
    assert again.code == exits.NOT_FOUND, again.err
    nothing_left(store_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_one_of_both_sides_here_is_ended(
    start: Callable[..., subprocess.Popen[str]], store_path: str, number: signal.Signals
) -> None:
    """Ctrl-C, SIGTERM, and the death of the partner that --alone has started: both sides end, both lanes are left, the folder is removed."""
    before = folders()
    alone = start("litmus", store_path, "--alone", *ENDLESS)
    eventually(lambda: is_at_it(store_path, 2), "both sides at it", LIMIT_S)
    time.sleep(1)
    if number != signal.SIGKILL:
        alone.send_signal(number)
    else:
        (partner,) = Path(f"/proc/{alone.pid}/task/{alone.pid}/children").read_text().split()
        os.kill(int(partner), number)
    _, err = alone.communicate(timeout=LIMIT_S)
    assert alone.returncode == (exits.ERROR if number == signal.SIGKILL else exits.INTERRUPTED), err
    nothing_left(store_path)
    assert folders() == before


def test_one_at_a_time_on_a_host(
    gismo: Callable[..., Result], start: Callable[..., subprocess.Popen[str]], store_path: str, shm: Path
) -> None:
    waiting = start("litmus", store_path, "--state-dir", shm / "state")
    eventually(lambda: is_at_it(store_path, 1), "it waits", LIMIT_S)
    busy = gismo("litmus", store_path)
    assert busy.code == exits.REFUSED
    assert "already" in busy.err
    waiting.send_signal(signal.SIGINT)
    waiting.communicate(timeout=LIMIT_S)
    assert waiting.returncode == exits.INTERRUPTED
    nothing_left(store_path)


def verdict_of(outcome: LitmusOutcome, violations: int) -> _native.CLitmusVerdict:
    made = _native.CLitmusVerdict(tested_unix_ns=1, partner_host=1, outcome=outcome)
    made.rounds[0], made.violations[0] = 10**8, violations
    return made


def test_a_verdict_of_real_hardware_stays(
    gismo: Callable[..., Result], start: Callable[..., subprocess.Popen[str]], store_path: str, shm: Path
) -> None:
    with gismo_core.open(store_path, state_dir=shm / "state") as store:
        store._slow("litmus_record", verdict_of(LitmusOutcome.HOLDS, 0))
        start("litmus", store_path, "--state-dir", shm / "other")
        done = gismo("litmus", store_path, "--only", "A3.tearing", "--rounds", 10)
        assert done.code == exits.OK, done.err
        assert "what was found before, on real hardware, stands" in done.out
        assert "host 0: holds (with host 1, " in gismo("info", store_path).out


def test_a_violation_is_shown(gismo: Callable[..., Result], store_path: str, shm: Path) -> None:
    with gismo_core.open(store_path, state_dir=shm / "state") as store:
        store._slow("litmus_record", verdict_of(LitmusOutcome.VIOLATED, 3))
    assert "host 0: violated: A1.dekker 3 of 1e8 (with host 1, " in gismo("info", store_path).out
    assert "violated: A1.dekker 3 of 1e8" in gismo("hosts", store_path).out
    doctor = gismo("doctor", store_path)
    assert doctor.code == exits.ERROR
    assert re.search(r"^fail +litmus +host 0: violated: A1.dekker 3 of 1e8", doctor.out, re.MULTILINE)


def commands_of_the_docs() -> list[list[str]]:
    text = (ROOT / "docs" / "coherence.md").read_text()
    return [line.split()[1:] for line in text.splitlines() if re.match(r"    gismo (?!-)", line)]


def test_the_commands_of_the_docs_work(
    gismo: Callable[..., Result], start: Callable[..., subprocess.Popen[str]], store_path: str, shm: Path
) -> None:
    commands = [[store_path if word == "STORE" else word for word in one] for one in commands_of_the_docs()]
    assert len(commands) >= 4
    for command in commands:
        if command[0] == "litmus" and "--alone" not in command:
            start(*command, "--state-dir", shm / "other")
        done = gismo(*command, *(("--rounds", 20) if command[0] == "litmus" else ()))
        assert done.code == exits.OK, (command, done.err)
