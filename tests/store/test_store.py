"""What the conformance suite does not cover: opening, formatting, permissions, lifetimes, and the cost from Python."""

from __future__ import annotations

import gc
import os
import stat
import subprocess
import sys
import textwrap
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gismo_core
from gismo_core import (
    Handle,
    InvalidArgument,
    NotAStore,
    Store,
    StoreExists,
    StorePermissionError,
    SystemCallError,
    View,
)

MiB = 1024**2


def script(code: str, *arguments: str) -> str:
    """Run a Python program with these modules; its output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    words = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


# ---- format and open -------------------------------------------------------------------------------


def test_format_tells_what_it_made(shm: Path) -> None:
    wanted = uuid.uuid4()
    steps: list[tuple[int, int]] = []
    info = gismo_core.format(
        shm / "pool",
        size=64 * MiB,
        max_objects=5000,
        max_hosts=3,
        coherence="software",
        store_uuid=wanted,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert info == gismo_core.probe(shm / "pool")
    assert (info.store_uuid, info.max_hosts, info.coherence, info.is_dax) == (wanted, 3, "software", False)
    assert info.max_objects >= 5000
    assert info.size_bytes == 64 * MiB == (shm / "pool").stat().st_size
    assert 0.8 * info.size_bytes < info.data_bytes < info.size_bytes
    assert steps
    assert all(0 <= done <= total for done, total in steps)
    assert abs(info.created_unix_ns - time.time_ns()) < 60e9


@pytest.mark.parametrize("populate", [True, False])
def test_populate(shm: Path, populate: bool) -> None:
    gismo_core.format(shm / "pool", size=64 * MiB, populate=populate)
    allocated = (shm / "pool").stat().st_blocks * 512
    assert (allocated >= 64 * MiB) == populate


def test_mode_is_private_unless_widened(shm: Path) -> None:
    old = os.umask(0o022)
    try:
        gismo_core.format(shm / "private", size=32 * MiB)
        gismo_core.format(shm / "shared", size=32 * MiB, mode=0o666)
    finally:
        os.umask(old)
    assert stat.S_IMODE((shm / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((shm / "shared").stat().st_mode) == 0o666


def test_nothing_is_overwritten_unasked(shm: Path, store_path: str) -> None:
    with pytest.raises(StoreExists):
        gismo_core.format(store_path)
    before = gismo_core.probe(store_path)
    assert gismo_core.format(store_path, force=True).store_uuid != before.store_uuid
    (shm / "file").write_bytes(b"x" * 5000)
    with pytest.raises(StoreExists):
        gismo_core.format(shm / "file", size=64 * MiB)
    assert (shm / "file").read_bytes() == b"x" * 5000


def test_symbolic_links_are_not_followed(shm: Path, store_path: str) -> None:
    (shm / "link").symlink_to(store_path)
    (shm / "dangling").symlink_to(shm / "target")
    with pytest.raises((StorePermissionError, SystemCallError)):
        gismo_core.open(shm / "link", state_dir=shm / "state")
    for name in ("link", "dangling"):
        with pytest.raises((StorePermissionError, SystemCallError)):
            gismo_core.format(shm / name, size=64 * MiB, force=True)
    assert not (shm / "target").exists()


@pytest.mark.parametrize("content", [b"", b"x", bytes(4096), b"text" * 100_000])
def test_what_is_no_store(shm: Path, content: bytes) -> None:
    (shm / "other").write_bytes(content)
    for call in (gismo_core.open, gismo_core.probe):
        with pytest.raises(NotAStore):
            call(shm / "other")


def test_what_is_not_there(shm: Path) -> None:
    for path in (shm / "absent", f"file:{shm}/absent"):
        with pytest.raises(NotAStore, match="format"):
            gismo_core.open(path)
    for path in ("dax:/dev/dax99.9", "/dev/dax99.9"):
        with pytest.raises(NotAStore, match="daxctl"):
            gismo_core.open(path)
        with pytest.raises(NotAStore, match="daxctl"):  # and no file of that name is made in its place
            gismo_core.format(path, size=8 * MiB)
    assert not Path("/dev/dax99.9").exists()
    with pytest.raises(InvalidArgument, match="directory"):
        gismo_core.format(shm, size=8 * MiB)
    with pytest.raises(gismo_core.SystemCallError, match="directory"):
        gismo_core.format(shm / "absent" / "pool", size=8 * MiB)


@pytest.mark.parametrize(
    "options",
    [
        {"size": -1},
        {"size": 1.5},
        {"size": float("nan")},
        {"size": "4GiB"},
        {"size": 2**70},
        {"size": 4096},
        {"max_hosts": 65},
        {"coherence": "none"},
        {"mode": "0600"},
        {"progress": 5},
        {"store_uuid": "x"},
    ],
)
def test_bad_format_options(shm: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        gismo_core.format(shm / "pool", **{"size": 64 * MiB, **options})


@pytest.mark.parametrize("path", ["", "a\0b", 5, b"\0"])
def test_bad_paths(path: Any) -> None:
    with pytest.raises(InvalidArgument):
        gismo_core.open(path)


@pytest.mark.parametrize("directory", ["", "a\0b", 5])
def test_bad_state_directories(store_path: str, directory: Any) -> None:
    with pytest.raises(InvalidArgument):
        gismo_core.open(store_path, state_dir=directory)


@pytest.mark.parametrize("wait_s", [-1, float("nan"), "x"])
def test_bad_waits(store: Store, wait_s: Any) -> None:
    for call in (
        lambda: store.put(b"x", wait_s=wait_s),
        lambda: store.create(1, wait_s=wait_s),
        lambda: store.lookup("x", wait_s),
    ):
        with pytest.raises(InvalidArgument, match="wait_s"):
            call()
    store.put(b"x", wait_s=1e300)


def test_bad_writes_to_a_draft(store: Store) -> None:
    draft = store.create(100)
    for offset, data in ((99, b"xx"), (-1, b"x"), ("x", b"x"), (0, "x"), (0, None), (2**70, b"")):
        with pytest.raises(InvalidArgument):
            draft.write(offset, data)  # type: ignore[arg-type]
    draft.write(98, b"xx")
    assert bytes(store.get(draft.seal()).data[98:]) == b"xx"


def test_the_store_from_the_environment(shm: Path, store_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GISMO_STORE", raising=False)
    with pytest.raises(InvalidArgument, match="GISMO_STORE"):
        gismo_core.open()
    monkeypatch.setenv("GISMO_STORE", store_path)
    monkeypatch.setenv("GISMO_STATE_DIR", str(shm / "state"))
    with gismo_core.open() as store:
        assert store.info == gismo_core.probe(store_path)
    assert (shm / "state" / store.info.store_uuid.hex).is_dir()


def test_a_host_id_can_be_chosen(shm: Path, store_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with gismo_core.open(store_path, state_dir=shm / "seven", host_id=7) as store:
        assert store.stats().lane == 7
        with pytest.raises(gismo_core.HostIdInUse):
            gismo_core.open(store_path, state_dir=shm / "other", host_id=7)
        monkeypatch.setenv("GISMO_HOST_ID", "3")
        with gismo_core.open(store_path, state_dir=shm / "three") as other:
            assert other.stats().lane == 3
    with pytest.raises(InvalidArgument):
        gismo_core.open(store_path, state_dir=shm / "x", host_id=-5)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_users_store_is_a_clear_error(shm: Path, store_path: str) -> None:
    os.chmod(shm, 0o755)
    (shm / "theirs").mkdir(mode=0o777)
    os.chmod(shm / "theirs", 0o777)

    def as_nobody() -> None:
        os.setgid(65534)
        os.setuid(65534)
        with pytest.raises(StorePermissionError):
            gismo_core.open(store_path, state_dir=shm / "theirs")

    from gismo_core.testing import in_fork

    in_fork(as_nobody)


def test_an_exception_in_progress_stops_format(shm: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gismo_core.format(shm / "pool", size=64 * MiB, progress=stop)


def test_two_hosts_cannot_be_one(shm: Path, store: Store, store_path: str) -> None:
    mine = store.stats().lane
    with pytest.raises(gismo_core.HostIdInUse):
        gismo_core.open(store_path, state_dir=shm / "elsewhere", host_id=mine)


def test_evicting_a_living_host_is_refused(shm: Path, store: Store, store_path: str) -> None:
    with gismo_core.open(store_path, state_dir=shm / "other") as other, pytest.raises(gismo_core.GismoError):
        store.evict_host(other.stats().lane)


# ---- lifetimes -------------------------------------------------------------------------------------


def test_a_forgotten_store_closes_itself(shm: Path, store_path: str) -> None:
    store = gismo_core.open(store_path, state_dir=shm / "state")
    watcher = gismo_core.open(store_path, state_dir=shm / "state")
    assert len(watcher.processes()) == 2 or len(watcher.processes()) == 1
    view = store.get(store.put(b"abc"))
    del store
    gc.collect()
    assert bytes(view) == b"abc"
    del view
    gc.collect()
    assert watcher.stats().pins_here == 0
    watcher.close()


def test_exit_without_close_is_clean(shm: Path, store_path: str) -> None:
    code = """
    import sys, gismo_core
    store = gismo_core.open(sys.argv[1], state_dir=sys.argv[2])
    kept = memoryview(store.get(store.put(b"abc", name="n")))
    draft = store.create(100)
    buffer = draft.buffer[:]
    print(bytes(kept))
    """
    assert script(code, store_path, str(shm / "state")) == "b'abc'\n"
    with gismo_core.open(store_path, state_dir=shm / "state") as store:
        assert bytes(store.get(store.lookup("n"))) == b"abc"
        assert store.stats().recovered_processes == 0


def test_finalizers_at_interpreter_exit(shm: Path, store_path: str) -> None:
    code = """
    import atexit, sys, gismo_core
    class Late:
        def __init__(self, view): self.view = view
        def __del__(self): assert bytes(self.view) == b"abc"
    store = gismo_core.open(sys.argv[1], state_dir=sys.argv[2])
    sys.late = Late(store.get(store.put(b"abc")))
    cycle = [store.get(store.put(b"abc"))]; cycle.append(cycle)
    """
    script(code, store_path, str(shm / "state"))


def test_views_cannot_be_made_by_hand() -> None:
    with pytest.raises(InvalidArgument):
        View()
    with pytest.raises(InvalidArgument):
        gismo_core.Draft()


def test_views_can_be_referenced_weakly(store: Store) -> None:
    import weakref

    view = store.get(store.put(b"abc"))
    reference = weakref.ref(view)
    assert reference() is view
    del view
    assert reference() is None


def test_a_subclass_of_view_is_bytes_like(store: Store) -> None:
    class Mine(View):
        pass

    view = store.get(store.put(b"abc"))
    mine = object.__new__(Mine)
    mine._b_memory = view.data
    assert bytes(mine) == b"abc"


def test_the_lock_of_a_store_is_new_after_fork(store: Store) -> None:
    from gismo_core.testing import in_fork

    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with store._native.lock:
            held.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)

    def child() -> None:
        draft = store.create(10)
        _ = draft.buffer
        draft.seal()
        store.close()

    in_fork(child)
    release.set()
    thread.join()


def test_put_gives_the_gil_away(make_store: Callable[..., str], shm: Path) -> None:
    with gismo_core.open(make_store(64 * MiB), state_dir=shm / "state") as store:
        assert ticks_during_puts(store, bytes(24 * MiB)) > 10


def ticks_during_puts(store: Store, data: bytes) -> int:
    """How often another thread had its turn while these were copied."""
    ticks = 0
    stop = False

    def tick() -> None:
        nonlocal ticks
        while not stop:
            ticks += 1
            time.sleep(0)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        seen = []
        for _ in range(5):
            before = ticks
            store.delete(store.put(data))
            seen.append(ticks - before)
    finally:
        stop = True
        thread.join()
    return sum(seen)


# ---- cost ------------------------------------------------------------------------------------------


def best_us(call: Callable[[], object], number: int = 1000, repeats: int = 60) -> float:
    best = float("inf")
    for _ in range(repeats):
        started_s = time.perf_counter()
        for _ in range(number):
            call()
        best = min(best, time.perf_counter() - started_s)
    return best / number * 1e6


def test_a_cycle_costs_microseconds(store: Store) -> None:
    """A bound against accidents; the figure itself is `store.cycle.python` of `gismo bench store`."""

    def cycle() -> None:
        handle = store.create(64).seal()
        store.get(handle).release()
        store.delete(handle)

    assert best_us(cycle) < 20


def test_get_does_not_depend_on_the_size(store: Store) -> None:
    small, large = store.put(b"x" * 4096), store.put(bytes(12 * MiB))
    costs = {handle: best_us(lambda handle=handle: store.get(handle)) for handle in (small, large)}  # type: ignore[misc]
    assert costs[large] < 2 * costs[small] + 0.5


def test_a_scan_lists_what_has_the_tag(store: Store) -> None:
    kept = [store.put(bytes([index]) * 100, tag=0xABC0_0000_0000_0000 | index) for index in range(200)]
    store.put(b"other", tag=0xABD0_0000_0000_0000)
    view = store.get(kept[3])
    store.delete(kept[7])
    found = store.sealed(tag=0xABC0_0000_0000_0000, mask=0xFFFF_0000_0000_0000)
    assert {one.handle for one in found} == set(kept) - {kept[7]}
    assert {one.tag for one in found} == {0xABC0_0000_0000_0000 | i for i in range(200)} - {0xABC0_0000_0000_0007}
    assert [one.handle for one in found if one.pins_here] == [view.handle]
    assert len(store.sealed()) == 200


def test_a_follower_tells_what_is_new_and_what_is_gone(store: Store) -> None:
    tag, mask = 0xABC0_0000_0000_0000, 0xFFFF_0000_0000_0000
    # More than one part of the list, so that its seams are looked at too.
    kept = {store.put(b"x", tag=tag).raw for _ in range(5000)}
    store.put(b"other", tag=0xABD0_0000_0000_0000)
    follower = store.follow(tag=tag, mask=mask)
    first = follower.look()
    assert (set(first.new), first.gone, first.pinned) == (kept, [], [])
    assert follower.look() == ([], [], [])
    gone, pinned = sorted(kept)[:2]
    view = store.get(Handle(pinned))
    store.delete(Handle(gone))
    new = store.put(b"y", tag=tag).raw  # may well take the slot of the one that is gone
    assert follower.look() == ([new], [gone], [pinned])
    assert follower.look() == ([], [], [pinned])
    view.release()
    follower.forget([new, gone])
    assert follower.look() == ([new], [], [])
    assert store.count_sealed(tag=tag, mask=mask) == 5000


def test_a_look_that_failed_half_way_is_told_by_the_next(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [store.put(b"x").raw for _ in range(5000)]  # two parts
    follower = store.follow()
    assert set(follower.look().new) == {*kept}
    view = store.get(Handle(kept[10]))
    for raw in (kept[0], kept[4999]):
        store.delete(Handle(raw))
    new = [store.put(b"y").raw for _ in range(5000)]
    whole = follower._parts

    def first_only(seen: Any) -> Iterator[memoryview]:
        parts = whole(seen)
        yield next(parts)
        raise MemoryError

    monkeypatch.setattr(follower, "_parts", first_only)
    for _ in range(2):
        with pytest.raises(MemoryError):
            follower.look()
    monkeypatch.setattr(follower, "_parts", whole)
    change = follower.look()
    assert (set(change.new), len(change.new)) == ({*new}, 5000)
    assert (set(change.gone), len(change.gone)) == ({kept[0], kept[4999]}, 2)
    assert change.pinned == [view.handle.raw]
    assert follower.look() == ([], [], [view.handle.raw])


def test_heads_of_many_by_one_call(store: Store) -> None:
    whole, short, gone = store.put(b"head" * 100).raw, store.put(b"head").raw, store.put(b"gone" * 100).raw
    store.delete(Handle(gone))
    forged = whole[:24] + bytes([whole[24] ^ 64]) + whole[25:]
    assert store.peek_many([whole, short, gone, forged, whole], 100) == [b"head" * 25, None, None, None, b"head" * 25]
    assert store.peek_many([], 100) == []
    assert not store.stats().pins_here
    for handles, nbytes in (([whole[:-1]], 4), ([whole], 0), ([whole], -1)):
        with pytest.raises(gismo_core.InvalidArgument):
            store.peek_many(handles, nbytes)


@pytest.mark.parametrize("read_only", [False, True])
def test_verifying_tells_how_far_it_is(make_store: Callable[..., str], shm: Path, read_only: bool) -> None:
    path = make_store(512 * MiB)
    told: list[int] = []
    with gismo_core.open(path, state_dir=shm / "state") as store:
        for nbytes in (200 * MiB, 30 * MiB, 50 * MiB):
            store.put(bytes(nbytes))
        with gismo_core.open(path, state_dir=shm / "state", read_only=read_only) as looking:
            assert looking.fsck(progress=told.append).ok
            assert told == []  # nothing was to be verified
            report = looking.fsck(verify=True, progress=told.append)
    assert report.payloads_verified == 3
    assert report.findings == ()
    assert len(told) == 4
    assert told == sorted(told)
    assert 256 * MiB <= told[-1] <= 280 * MiB


def test_peek_copies_without_a_pin(store: Store) -> None:
    handle = store.put([b"head", b"body" * 1000])
    assert store.peek(handle, 4) == b"head"
    assert store.peek(handle, 8, 64) == b"bodybody"
    assert not store.stats().pins_here
    with pytest.raises(gismo_core.InvalidArgument, match="payload has"):
        store.peek(handle, 4000, 100)
    store.delete(handle)
    with pytest.raises(gismo_core.ObjectGone):
        store.peek(handle, 4)


def test_what_is_kept_lives_as_long_as_the_bytes(store: Store) -> None:
    class Kept:
        pass

    kept = Kept()
    seen = weakref.ref(kept)
    array = memoryview(store.get(store.put(b"x" * 100), keep=kept))[10:20]
    del kept
    gc.collect()
    assert seen() is not None
    assert bytes(array) == b"x" * 10
    del array
    gc.collect()
    assert seen() is None


def test_several_buffers_are_written_in_place(store: Store) -> None:
    with store.create([100, 0, 5]) as draft:
        draft.buffer[:100] = b"a" * 100
        draft.buffer[128:133] = b"bbbbb"
        handle = draft.seal()
    assert [bytes(part) for part in store.get(handle).buffers] == [b"a" * 100, b"", b"bbbbb"]
    with pytest.raises(InvalidArgument, match="1 to"):
        store.create([])
    with pytest.raises(InvalidArgument, match="nbytes"):
        store.create([1, -1])


def test_the_state_directory_is_told(shm: Path, tmp_path: Path) -> None:
    info = gismo_core.format(shm / "pool", size=16 * MiB)
    with gismo_core.open(shm / "pool", state_dir=tmp_path) as store:
        assert store.state_dir == tmp_path / info.store_uuid.hex
        assert (tmp_path / info.store_uuid.hex / "state").exists()
    with gismo_core.open(shm / "pool", read_only=True) as store:
        assert store.state_dir is None
