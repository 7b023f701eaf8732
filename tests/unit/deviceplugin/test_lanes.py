"""What an agent does about hosts that fell silent, in real stores: each host is a process with a state directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import gismo_core
from gismo_core import node_marker
from gismo_core.records import HostState
from gismo_deviceplugin.pool import lanes
from gismo_deviceplugin.pool.lanes import Lanes, SilentHost, Store, life_began_unix_ns
from gismo_deviceplugin.pool.medium import Unfit
from gismo_deviceplugin.pool.view import Emulated, NodeView, PoolView
from pool_rack import MIB, ranged
from store_user import KEPT, StoreUser

NUMBER = uuid.UUID(int=1)
OPEN = "gismo_core.open(sys.argv[1], state_dir=sys.argv[2], host_id=int(sys.argv[3]))"


class Pair:
    """A store, and what the nodes a (host id 0) and b (host id 1) have of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 0.0
        self.path = folder / str(NUMBER)
        gismo_core.format(self.path, size=32 * MIB, max_hosts=8, store_uuid=NUMBER)
        self.a, self.b = (Store("one", str(NUMBER), self.path, folder / name) for name in "ab")
        self.boot_id = node_marker.boot_id()
        self.lanes = self.agent()
        self.seen = NodeView("b", 1, standing="Suspect", boot_id=self.boot_id)
        path = os.pathsep.join(entry for entry in sys.path if entry)
        arguments = (str(self.b.path), str(self.b.state_dir), "1")
        self.user = StoreUser(sys.executable, OPEN, *arguments, env={**os.environ, "PYTHONPATH": path})

    def agent(self, *, life_began_ns: int = 0) -> Lanes:
        return Lanes(self.boot_id, lambda: self.now, lambda: life_began_ns)

    def view(self, *others: NodeView, host_id: int = 0) -> PoolView:
        me = NodeView("a", host_id, boot_id=self.boot_id)
        return PoolView("rack1", Emulated(self.folder, 64 * MIB), me, others or (self.seen,), (ranged("one"),))

    def look(self, **about: object) -> SilentHost:
        """Of node b, as node a's agent has it now."""
        self.now += lanes.LOOK_S + 1
        self.seen = replace(self.seen, **about)  # type: ignore[arg-type]
        (found,) = self.lanes.silent(self.view(), {"one": self.a})
        return found

    def until(self, what: Callable[[SilentHost], bool]) -> SilentHost:
        end = time.monotonic() + 60
        while not what(found := self.look()):
            assert time.monotonic() < end, found
            time.sleep(0.1)
        return found

    def state(self) -> HostState:
        with gismo_core.open(self.path, read_only=True) as store:
            return next(one.state for one in store.hosts() if one.host_id == 1)

    def fence(self) -> None:
        with (
            gismo_core.open(self.path, state_dir=self.folder / "a", host_id=0) as store,
            pytest.raises(gismo_core.StoreBusy),
        ):
            store.evict_host(1, force=True)

    def ended(self) -> None:
        """Evictions have ended: they hold the store open."""
        for one in self.lanes._evictions.values():
            one.join(60)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="gismo-lanes-", dir="/dev/shm") as folder:
        made = Pair(Path(folder))
        try:
            yield made
        finally:
            made.user.process.send_signal(signal.SIGCONT)
            made.user.kill()
            made.ended()


def test_a_silent_node_is_fenced_and_a_dead_one_released(pair: Pair) -> None:
    pair.user.process.send_signal(signal.SIGSTOP)
    found = pair.look()
    assert (found.node, found.standing, found.active, found.fenced, found.released) == ("b", "Suspect", 1, 0, 0)
    found = pair.until(lambda one: not one.active)
    assert (found.fenced, found.released, found.message) == (1, 0, "")
    pair.ended()
    assert pair.look().fenced == 1, "without proof it stays so"
    pair.user.process.kill()
    pair.look(standing="Dead")
    found = pair.until(lambda one: not one.fenced)
    assert (found.standing, found.active, found.released) == ("Dead", 0, 1)
    pair.ended()
    assert pair.state() is HostState.QUIET
    with gismo_core.open(pair.path, state_dir=pair.folder / "a", host_id=0) as store:
        assert bytes(store.get(pair.user.kept).data) == KEPT
        assert store.stats().writing_objects == 0, "what it had half-written is gone"


def test_a_node_whose_heart_beats_is_neither_fenced_nor_released(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kubelet is down; and a word that it is off is wrong."""
    monkeypatch.setattr(lanes, "_TRY_S", 2.0)
    found = pair.until(lambda one: bool(one.message))
    assert (found.active, found.fenced) == (1, 0)
    assert "may be alive" in found.message
    pair.ended()
    pair.now += 60
    pair.look(standing="Dead")
    found = pair.until(lambda one: "not off" in one.message)
    assert (found.active, found.fenced, found.released) == (1, 0, 0)
    assert pair.user.put() == "done"


def test_another_boot_is_left_alone(pair: Pair) -> None:
    pair.user.kill()
    pair.look(standing="Dead", boot_id=str(uuid.uuid4()))
    found = pair.until(lambda one: bool(one.message))
    assert found.message == "one: it has been back since"
    assert pair.state() is HostState.ACTIVE


def test_the_next_agent_does_it_when_the_first_one_does_not(pair: Pair) -> None:
    first = NodeView("c", 0, boot_id=pair.boot_id)
    view = pair.view(first, pair.seen, host_id=2)
    third = Store("one", str(NUMBER), pair.path, pair.folder / "third")
    assert pair.lanes.silent(view, {"one": third}) == ()
    pair.now += lanes.NEXT_S - 1
    assert pair.lanes.silent(view, {"one": third}) == ()
    pair.now += 2
    (found,) = pair.lanes.silent(view, {"one": third})
    assert (found.host_id, found.active) == (1, 1)
    pair.now += 1
    assert pair.lanes.silent(pair.view(first, replace(pair.seen, standing="Active"), host_id=2), {"one": third}) == ()
    pair.user.process.send_signal(signal.SIGSTOP)
    pair.now += 1
    assert pair.lanes.silent(view, {"one": third}) == (), "it was Active in between"


def test_a_store_that_is_not_ready_here_is_not_said_to_be_done(pair: Pair) -> None:
    pair.user.kill()
    (found,) = pair.lanes.silent(pair.view(), {})
    assert (found.active, found.fenced, found.released) == (1, 0, 0)
    assert "1 Gismo namespaces are not ready on a" in found.message


def test_a_fenced_lane_is_taken_back_when_the_last_user_has_ended(pair: Pair) -> None:
    pair.lanes.come_home(pair.b, 1)
    assert pair.state() is HostState.ACTIVE, "nothing is wrong with it"
    pair.fence()
    pair.now += lanes.LOOK_S
    with pytest.raises(Unfit, match="delete their pods") as kept_out:
        pair.lanes.come_home(pair.b, 1)
    assert kept_out.value.reason == "Fenced"
    assert pair.user.put() == "Fenced"
    pair.user.kill()
    with pytest.raises(Unfit):
        pair.lanes.come_home(pair.b, 1)  # not each round anew
    pair.now += lanes.LOOK_S
    pair.lanes.come_home(pair.b, 1)
    assert pair.state() is HostState.QUIET
    pair.lanes.come_home(pair.b, 1)
    with gismo_core.open(pair.path, state_dir=pair.b.state_dir, host_id=1) as store:
        assert bytes(store.get(pair.user.kept).data) == KEPT


@pytest.mark.parametrize("fenced", [False, True])
def test_a_node_that_was_started_anew_takes_its_lane_back(pair: Pair, *, fenced: bool) -> None:
    if fenced:
        pair.fence()
    pair.user.kill()
    shutil.rmtree(pair.b.state_dir)
    pair.b.state_dir.mkdir()
    with pytest.raises(Unfit) as kept_out:
        pair.agent(life_began_ns=0).come_home(
            pair.b, 1
        )  # the node did not begin anew: where its state directory is nobody knows
    assert kept_out.value.reason == ("Fenced" if fenced else "HostIdInUse")
    pair.agent(life_began_ns=time.time_ns()).come_home(pair.b, 1)
    assert pair.state() is HostState.QUIET
    with gismo_core.open(pair.path, state_dir=pair.b.state_dir, host_id=1) as store:
        assert bytes(store.get(pair.user.kept).data) == KEPT
        assert store.stats().writing_objects == 0


def test_when_the_node_was_started(tmp_path: Path) -> None:
    began = life_began_unix_ns()
    assert 0 < began < time.time_ns()
    assert abs(life_began_unix_ns() - began) < 1e9
    (tmp_path / "1").mkdir()
    hz, up_s = os.sysconf("SC_CLK_TCK"), time.clock_gettime(time.CLOCK_BOOTTIME)
    fields = " ".join(["S", *(str(n) for n in range(4, 22)), str(int((up_s - 5) * hz)), "23"])
    (tmp_path / "1" / "stat").write_text(f"1 (a ) b) {fields}\n")
    assert abs(life_began_unix_ns(tmp_path) - (time.time_ns() - 5e9)) < 1e9
