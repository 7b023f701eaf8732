"""Hosts that fall silent: fenced, released, taken over; what comes back and what it is told. P10 of FORMAT.md.

A host is a process with a state directory of its own: stopped, it is a silent one, whose memory others still have.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import gismo_core
from gismo_core import Fenced, GismoError, HostIdInUse, InvalidArgument, StoreBusy
from gismo_core.records import HostState

MiB = 1 << 20

# Commands by lines on standard input, answers by lines on standard output.
HOST = """
import sys, gismo_core
store = gismo_core.open(sys.argv[1], state_dir=sys.argv[2], host_id=int(sys.argv[3]) if sys.argv[3] else None)
views, drafts, handles = [], [], []
print("ready", store.stats().lane, flush=True)
for line in sys.stdin:
    command, *words = line.split()
    try:
        if command == "put":
            handles.append(store.put(bytes([int(words[0])]) * int(words[1]), name=words[2] if len(words) > 2 else None))
            answer = str(handles[-1])
        elif command == "hold":
            views.append(store.get(gismo_core.Handle.parse(words[0])))
            answer = "held"
        elif command == "draft":
            drafts.append(store.create(int(words[0])))
            drafts[-1].buffer[:4] = b"half"
            answer = "drafted"
        elif command == "read":
            answer = str(sum(bytes(views[0])) // len(views[0]))
        elif command == "delete":
            store.delete(gismo_core.Handle.parse(words[0]))
            answer = "deleted"
        elif command == "close":
            views.clear(), drafts.clear()
            store.close()
            answer = "closed"
    except gismo_core.GismoError as error:
        answer = type(error).__name__
    print(answer, flush=True)
"""


class Host:
    """A host of one process, with a state directory of its own."""

    def __init__(self, store_path: str, state_dir: Path, host_id: str = "") -> None:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST, store_path, str(state_dir), host_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        word, lane = self._answer().split()
        assert word == "ready"
        self.lane = int(lane)

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __call__(self, command: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._answer()

    def put(self, byte: int, nbytes: int, name: str = "") -> gismo_core.Handle:
        return gismo_core.Handle.parse(self(f"put {byte} {nbytes} {name}"))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        while Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.thaw()
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture(params=["hardware", "software"])
def path(request: pytest.FixtureRequest, make_store: object) -> str:
    return str(make_store(64 * MiB, max_hosts=8, coherence=request.param))  # type: ignore[operator]


@pytest.fixture
def here(path: str, shm: Path) -> Iterator[gismo_core.Store]:
    with gismo_core.open(path, state_dir=shm / "here") as store:
        yield store


@pytest.fixture
def other(path: str, here: gismo_core.Store, shm: Path) -> Iterator[Host]:
    host = Host(path, shm / "other")
    yield host
    host.end()


def state_of(store: gismo_core.Store, lane: int) -> HostState:
    return next(host.state for host in store.hosts() if host.host_id == lane)


def clean(store: gismo_core.Store) -> None:
    report = store.fsck(verify=True)
    assert report.ok, report.findings
    assert report.leaked_bytes == 0


def deleted_soon(store: gismo_core.Store) -> None:
    end = time.monotonic() + 20
    while store.stats().deleted_objects + store.stats().writing_objects:
        assert time.monotonic() < end, store.stats()
        time.sleep(0.02)


def test_a_frozen_host_is_fenced_and_its_next_call_says_so(here: gismo_core.Store, other: Host) -> None:
    mine = here.put(b"\x07" * 100_000)
    kept = other.put(5, 200_000, "kept")
    assert other(f"hold {mine}") == "held"
    assert other("draft 300000") == "drafted"
    other.stop()
    with pytest.raises(StoreBusy, match="fenced"):
        here.evict_host(other.lane, force=True)
    assert state_of(here, other.lane) == HostState.FENCED
    # Quarantine: what it holds is not used again, what it has sealed is read.
    here.delete(mine)
    assert bytes(here.get(kept)) == b"\x05" * 200_000
    for _ in range(200):
        here.delete(here.put(b"\x09" * 100_000))
    time.sleep(1.2)  # it looks at its register when nobody of it has for a second
    other.thaw()
    assert other("put 1 100") == "Fenced"
    assert other("read") == "7", "its view stays its own"
    assert other(f"delete {kept}") == "Fenced"
    assert other("close") == "closed"
    done = here.evict_host(other.lane, wait_s=10)
    assert (done.state, done.objects) == (HostState.QUIET, 1)
    deleted_soon(here)
    assert bytes(here.get(here.lookup("kept"))) == b"\x05" * 200_000
    clean(here)


def test_a_killed_host_comes_back_and_goes_on(here: gismo_core.Store, other: Host, path: str, shm: Path) -> None:
    kept = other.put(5, 200_000)
    other("draft 300000")
    other.kill()
    with pytest.raises(StoreBusy):
        here.evict_host(other.lane, force=True)
    before = next(host.incarnation for host in here.hosts() if host.host_id == other.lane)
    with gismo_core.open(path, state_dir=shm / "other") as back:
        assert back.stats().lane == other.lane
        assert state_of(here, other.lane) == HostState.ACTIVE
        assert next(host.incarnation for host in here.hosts() if host.host_id == other.lane) > before
        assert bytes(back.get(kept)) == b"\x05" * 200_000
        deleted_soon(here)
        back.delete(kept)
        clean(here)


def test_a_host_that_is_off_is_taken_over(here: gismo_core.Store, other: Host) -> None:
    mine = here.put(b"\x07" * 100_000)
    kept = other.put(5, 200_000)
    gone = other.put(6, 200_000)
    other(f"hold {mine}")
    other("draft 300000")
    here.delete(mine)
    assert here.stats().deleted_objects == 1, "it is pinned there"
    other.kill()
    seen: list[HostState] = []
    done = here.evict_host(other.lane, confirmed_off=True, force=True, progress=lambda one: seen.append(one.state))
    assert (done.state, done.objects, done.left) == (HostState.QUIET, 2, False)
    assert seen == [HostState.QUIET]
    deleted_soon(here)
    assert bytes(here.get(kept)) == b"\x05" * 200_000
    here.delete(gone)
    with pytest.raises(gismo_core.ObjectGone):
        here.get(gone)
    deleted_soon(here)
    clean(here)
    # And all of its room, without what stays, can be used by us.
    big = here.put(bytes(40 * MiB))
    here.delete(big)
    here.delete(kept)
    deleted_soon(here)
    clean(here)


def test_a_silent_host_is_suspected_after_ten_looks(here: gismo_core.Store, other: Host) -> None:
    with pytest.raises(StoreBusy, match="may be alive"):
        here.evict_host(other.lane)
    assert state_of(here, other.lane) == HostState.ACTIVE
    assert other("put 1 100").startswith("gismo1-"), "it was not fenced"
    other.stop()
    samples: list[int] = []
    with pytest.raises(StoreBusy, match="fenced"):
        here.evict_host(other.lane, wait_s=20, progress=lambda one: samples.append(one.silent_samples))
    assert max(samples) == 10
    assert state_of(here, other.lane) == HostState.FENCED
    other.thaw()
    time.sleep(0.2)
    assert other("put 1 100") == "Fenced"


def test_a_quiet_lane_is_served_when_its_objects_are_deleted(here: gismo_core.Store, other: Host) -> None:
    handles = [other.put(5, 100_000, f"n{i}") for i in range(5)]
    held = here.get(handles[0])
    assert other("close") == "closed"
    assert state_of(here, other.lane) == HostState.QUIET
    for handle in handles:
        here.delete(handle)
    end = time.monotonic() + 20
    while here.stats().sealed_objects or here.stats().deleted_objects > 1:
        assert time.monotonic() < end, here.stats()
        time.sleep(0.02)
    assert bytes(held) == b"\x05" * 100_000
    del held
    deleted_soon(here)
    assert state_of(here, other.lane) == HostState.QUIET
    clean(here)


def test_the_id_of_a_host_can_be_taken_when_it_is_out(
    here: gismo_core.Store, other: Host, path: str, shm: Path
) -> None:
    other.stop()
    with pytest.raises(StoreBusy):
        here.evict_host(other.lane, force=True)
    with pytest.raises((HostIdInUse, Fenced)):
        gismo_core.open(path, state_dir=shm / "new", host_id=other.lane)
    with pytest.raises(Fenced):
        gismo_core.open(path, state_dir=shm / "other")
    other.kill()
    here.evict_host(other.lane, confirmed_off=True)
    with gismo_core.open(path, state_dir=shm / "new", host_id=other.lane) as new:
        assert new.stats().lane == other.lane
        assert bytes(new.get(new.put(b"x"))) == b"x"


def test_only_that_boot_of_a_host_is_evicted(here: gismo_core.Store, other: Host) -> None:
    other.kill()
    with pytest.raises(GismoError, match="has been back"):
        here.evict_host(other.lane, confirmed_off=True, force=True, boot_id=uuid.uuid4())
    assert state_of(here, other.lane) == HostState.ACTIVE
    with pytest.raises(InvalidArgument, match="boot_id"):
        here.evict_host(other.lane, boot_id="yesterday")  # type: ignore[arg-type]
    boot_id = uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    assert here.evict_host(other.lane, True, force=True, boot_id=boot_id).state is HostState.QUIET


@pytest.mark.parametrize("fenced", [False, True])
def test_a_host_that_was_started_anew_takes_its_place_again(
    here: gismo_core.Store, other: Host, path: str, shm: Path, *, fenced: bool
) -> None:
    kept = other.put(5, 200_000)
    other("draft 300000")
    if fenced:
        with pytest.raises(StoreBusy):
            here.evict_host(other.lane, force=True)
    shutil.rmtree(shm / "other")  # as a container's /run is lost when it is started anew
    with pytest.raises((HostIdInUse, Fenced)):
        gismo_core.open(path, state_dir=shm / "other", host_id=other.lane)
    if not fenced:  # a wrong word, and its heart beats
        with pytest.raises(HostIdInUse):
            gismo_core.open(path, state_dir=shm / "other", host_id=other.lane, restarted=True)
    other.kill()
    with pytest.raises((HostIdInUse, Fenced)):
        gismo_core.open(path, state_dir=shm / "other", host_id=other.lane)
    with gismo_core.open(path, state_dir=shm / "other", host_id=other.lane, restarted=True) as back:
        assert back.stats().lane == other.lane
        assert bytes(back.get(kept)) == b"\x05" * 200_000
        deleted_soon(here)
        back.delete(kept)
        deleted_soon(here)
        clean(here)


def test_what_cannot_be_evicted(here: gismo_core.Store) -> None:
    with pytest.raises(InvalidArgument, match="itself"):
        here.evict_host(here.stats().lane)
    with pytest.raises(InvalidArgument, match="range"):
        here.evict_host(40)
    with pytest.raises(GismoError, match="no host 5"):
        here.evict_host(5)


def gismo(*words: str, state_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "GISMO_STATE_DIR": str(state_dir),
    }
    command = [sys.executable, "-m", "gismo_core", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_the_command(here: gismo_core.Store, other: Host, path: str, shm: Path) -> None:
    other.put(5, 200_000)
    lane = str(other.lane)
    alive = gismo("evict", path, lane, "--wait", "0", state_dir=shm / "here")
    assert alive.returncode == 6
    assert "may be alive" in alive.stderr
    dry = gismo("evict", path, lane, "--confirmed-off", "--dry-run", state_dir=shm / "here")
    assert dry.returncode == 0
    assert "overwrites objects of others" in dry.stderr
    assert state_of(here, other.lane) == HostState.ACTIVE
    other.kill()
    fenced = gismo("evict", path, lane, "--force", "--wait", "0", state_dir=shm / "here")
    assert fenced.returncode == 6
    assert f"host {lane}: fenced" in fenced.stderr
    assert "fenced" in gismo("hosts", path, state_dir=shm / "here").stdout
    done = gismo("evict", path, lane, "--confirmed-off", "--json", state_dir=shm / "here")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["eviction"]["objects"] == 1
    assert said["host"]["host_id"] == other.lane
    again = gismo("evict", path, lane, state_dir=shm / "here")
    assert again.returncode == 0, again.stderr
    assert f"host {lane} is out: 1 objects of it stay" in again.stdout
    unknown = gismo("evict", path, "6", "--json", state_dir=shm / "here")
    assert unknown.returncode == 2
    assert "no host 6" in json.loads(unknown.stderr)["error"]["message"]
