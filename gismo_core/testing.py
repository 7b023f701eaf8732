"""A conformance suite: what every store must do, whatever the medium.

    class TestMyMedium(StoreConformance):
        def make_store(self, folder: Path) -> str:
            path = f"file:{folder}/pool"
            gismo_core.format(path, size=self.SIZE_BYTES)
            return path

Needs pytest. Each test gets a store of its own of SIZE_BYTES; numpy and pyarrow tests skip where those are absent.
"""

from __future__ import annotations

import array
import contextlib
import copy
import datetime
import gc
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gismo_core
from gismo_core import (
    GismoError,
    Handle,
    InvalidArgument,
    NameNotFound,
    NameTaken,
    ObjectGone,
    ObjectState,
    Store,
    StoreClosed,
    StoreFull,
    StorePermissionError,
)

SIZES = (0, 1, 7, 63, 64, 65, 1000, 4095, 4096, 4097, 65536, 100_003, 1 << 20, (3 << 20) + 5)
_PATIENCE_S = 30.0


def pattern(nbytes: int, seed: int = 0) -> bytes:
    """Bytes that differ for each seed and that no shift of them repeats."""
    return random.Random(seed).randbytes(nbytes)


def eventually(condition: Callable[[], object], what: str, patience_s: float = _PATIENCE_S) -> None:
    """Wait until it holds: for what the store promises soon, not at once (other hosts, the background thread)."""
    end_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end_s:
            pytest.fail(f"not within {patience_s:.0f} s: {what}")
        time.sleep(0.002)


def in_fork(work: Callable[[], object]) -> None:
    """Run in a forked child; what it raises fails the test here."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - the child must not run on into the test session
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the forked child failed; its traceback is above"


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Another Python process with `gismo_core`, `os`, `sys`, `time` imported and its arguments in `args`."""
    head = "import os, random, sys, time, gismo_core\nargs = sys.argv[1:]\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def wait_all(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Their outputs; all must end well."""
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs


class StoreConformance:
    """Subclass it as Test…, and say in make_store how to make an empty store."""

    SIZE_BYTES = 16 * 1024**2

    def make_store(self, folder: Path) -> str:
        """Make an empty store of about SIZE_BYTES, below the temporary `folder` if it is a file; return its path."""
        raise NotImplementedError

    def remove_store(self, path: str) -> None:
        """Undo make_store where the temporary folder does not."""

    @pytest.fixture
    def store_path(self, tmp_path: Path) -> Iterator[str]:
        path = self.make_store(tmp_path)
        yield path
        self.remove_store(path)

    @pytest.fixture
    def state_dir(self, tmp_path: Path) -> Path:
        return tmp_path / "host-a"

    @pytest.fixture
    def store(self, store_path: str, state_dir: Path) -> Iterator[Store]:
        with gismo_core.open(store_path, state_dir=state_dir) as opened:
            yield opened
            if opened.closed:
                return
            gc.collect()
            report = opened.fsck(verify=True)
            assert report.ok, report.findings
            assert report.leaked_bytes == 0

    # ---- put and get -------------------------------------------------------------------------------

    @pytest.mark.parametrize("nbytes", SIZES)
    def test_put_and_get_give_the_same_bytes(self, store: Store, nbytes: int) -> None:
        data = pattern(nbytes)
        handle = store.put(data)
        with store.get(handle) as view:
            assert bytes(view) == data
            assert view.nbytes == len(view) == nbytes == handle.length
            assert view.handle == handle
            assert len(view.buffers) == 1
            assert view.verify()

    def test_put_takes_every_kind_of_buffer(self, store: Store) -> None:
        data = pattern(1000)
        numbers = array.array("d", [1.5, 2.5])
        first = store.get(store.put(data))
        for given in (data, bytearray(data), memoryview(data), pickle.PickleBuffer(data), first, first.data):
            assert bytes(store.get(store.put(given))) == data
        assert bytes(store.get(store.put(numbers))) == numbers.tobytes()
        assert bytes(store.get(store.put(memoryview(data)[100:200]))) == data[100:200]

    def test_buffers_come_back_as_they_were_put(self, store: Store) -> None:
        parts = [pattern(length, length) for length in (100, 0, 64, 1, 5000, 0, 63)]
        handle = store.put(parts)
        view = store.get(handle)
        assert [bytes(part) for part in view.buffers] == parts
        assert view.verify()
        start = 0
        for part in parts:
            assert bytes(view.data[start : start + len(part)]) == part
            start += -(-len(part) // 64) * 64
        assert [bytes(part) for part in store.get(store.put((b"",))).buffers] == [b""]

    def test_many_buffers(self, store: Store) -> None:
        parts = [index.to_bytes(4, "little") for index in range(3000)]
        view = store.get(store.put(parts))
        assert [bytes(part) for part in view.buffers] == parts

    @pytest.mark.parametrize("bad", ["text", 5, None, [], [b"a", "text"], memoryview(b"abcdef")[::2]])
    def test_what_is_no_buffer_is_refused(self, store: Store, bad: Any) -> None:
        with pytest.raises(InvalidArgument):
            store.put(bad)
        assert store.stats().sealed_objects == store.stats().writing_objects == 0

    def test_views_are_read_only(self, store: Store) -> None:
        view = store.get(store.put(b"abc"))
        for memory in (memoryview(view), view.data, view.buffers[0]):
            assert memory.readonly
            with pytest.raises(TypeError):
                memory[0] = 1
        with pytest.raises((BufferError, TypeError)), open(os.devnull, "rb") as source:
            source.readinto(view)

    def test_a_view_is_bytes_like(self, store: Store) -> None:
        data = pattern(300)
        view = store.get(store.put(data))
        memory = memoryview(view)
        assert (memory.format, memory.itemsize, memory.ndim, memory.shape) == ("B", 1, 1, (300,))
        assert memory == data
        assert b"".join([view, view]) == data + data
        assert bytes(pickle.PickleBuffer(view)) == data

    def test_facts_about_an_object(self, store: Store) -> None:
        before = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=2)
        view = store.get(store.put(b"abc", name="näme", tag=2**64 - 1))
        assert (view.name, view.tag) == ("näme", 2**64 - 1)
        assert before <= view.created <= datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)
        plain = store.get(store.put(b"abc"))
        assert (plain.name, plain.tag) == (None, 0)

    def test_numpy_sees_the_shared_bytes(self, store: Store) -> None:
        numpy: Any = pytest.importorskip("numpy")
        given = numpy.arange(5000, dtype=numpy.float64)
        handle = store.put(given)
        view = store.get(handle)
        back = numpy.frombuffer(view, dtype=numpy.float64)
        assert (back == given).all()
        assert not back.flags.writeable
        assert back.ctypes.data % 64 == 0
        assert store.find(back) == handle
        with pytest.raises(ValueError, match="WRITEABLE"):
            back.flags.writeable = True
        strided = given.reshape(50, 100)[:, ::2]
        with pytest.raises(InvalidArgument):
            store.put(strided)

    def test_pyarrow_sees_the_shared_bytes(self, store: Store) -> None:
        arrow: Any = pytest.importorskip("pyarrow")
        handle = store.put(pattern(4096))
        view = store.get(handle)
        buffer = arrow.py_buffer(view)
        assert not buffer.is_mutable
        assert buffer.to_pybytes() == pattern(4096)
        del view
        gc.collect()
        assert store.stats().pins_here == 1
        assert store.find(buffer) == handle

    # ---- handles -----------------------------------------------------------------------------------

    def test_handles_survive_every_way_of_sending_them(self, store: Store) -> None:
        handle = store.put(b"abc")
        for same in (
            pickle.loads(pickle.dumps(handle)),
            Handle.parse(str(handle)),
            Handle.from_bytes(handle.to_bytes()),
        ):
            assert same == handle
            assert hash(same) == hash(handle)
            assert bytes(store.get(same)) == b"abc"

    def test_a_stale_handle_is_gone_and_never_other_bytes(self, store: Store) -> None:
        stale = []
        for round_number in range(300):
            handle = store.put(pattern(64, round_number))
            store.delete(handle)
            stale.append(handle)
        assert len(set(stale)) == len(stale)
        live = store.put(b"x" * 64)
        for handle in stale:
            with pytest.raises(ObjectGone):
                store.get(handle)
            with pytest.raises(ObjectGone):
                store.delete(handle)
        assert bytes(store.get(live)) == b"x" * 64

    def test_forged_handles_are_refused(self, store: Store) -> None:
        real = store.put(pattern(5000))
        store.put(b"neighbour")
        chance = random.Random(1)
        for _ in range(2000):
            raw = bytearray(real.raw)
            for _ in range(chance.randint(1, 4)):
                raw[chance.randrange(48)] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
            if bytes(raw) == real.raw:
                continue
            for call in (store.get, store.delete):
                with pytest.raises((ObjectGone, InvalidArgument)):
                    call(Handle(bytes(raw)))
        assert bytes(store.get(real)) == pattern(5000)

    def test_a_handle_of_another_store_is_refused(self, store: Store, tmp_path: Path) -> None:
        other_path = f"file:{tmp_path}/another-store"
        gismo_core.format(other_path, size=32 << 20)
        with gismo_core.open(other_path, state_dir=tmp_path / "host-a") as other:
            handle = other.put(b"abc")
            assert other.info.store_uuid != store.info.store_uuid
            for call in (store.get, store.delete):
                with pytest.raises((InvalidArgument, ObjectGone)):
                    call(handle)
            assert bytes(other.get(handle)) == b"abc"

    @pytest.mark.parametrize("bad", ["gismo1-abc", b"x" * 48, None, 7])
    def test_what_is_no_handle_is_refused(self, store: Store, bad: Any) -> None:
        for call in (store.get, store.delete):
            with pytest.raises(InvalidArgument):
                call(bad)

    # ---- names -------------------------------------------------------------------------------------

    def test_names(self, store: Store) -> None:
        handle = store.put(b"abc", name="model/weights")
        assert store.lookup("model/weights") == handle
        with pytest.raises(NameTaken):
            store.put(b"def", name="model/weights")
        with pytest.raises(NameNotFound):
            store.lookup("model/weight")
        store.delete(handle)
        with pytest.raises(NameNotFound):
            store.lookup("model/weights")
        again = store.put(b"ghi", name="model/weights")
        assert store.lookup("model/weights") == again != handle

    def test_names_of_every_length(self, store: Store) -> None:
        names = ["n" * length for length in (1, 7, 8, 31, 32, 63, 64, 100, 254, 255)] + ["é" * 127, "\0", "a\0b"]
        handles = {name: store.put(name.encode(), name=name) for name in names}
        for name, handle in handles.items():
            assert store.lookup(name) == handle
            assert store.get(handle).name == name
        for bad in ("", "n" * 256, "é" * 128):
            with pytest.raises(InvalidArgument):
                store.put(b"", name=bad)
            with pytest.raises(InvalidArgument):
                store.lookup(bad)

    def test_many_names(self, store: Store) -> None:
        handles = [store.put(b"", name=f"name-{index}") for index in range(1000)]
        for index, handle in enumerate(handles):
            assert store.lookup(f"name-{index}") == handle
        for handle in handles[::2]:
            store.delete(handle)
        for index, handle in enumerate(handles):
            if index % 2:
                assert store.lookup(f"name-{index}") == handle
            else:
                with pytest.raises(NameNotFound):
                    store.lookup(f"name-{index}")

    def test_an_unsealed_object_has_no_name_yet(self, store: Store) -> None:
        with store.create(10, name="soon") as draft:
            with pytest.raises(NameNotFound):
                store.lookup("soon")
            handle = draft.seal()
        assert store.lookup("soon") == handle
        with pytest.raises(NameTaken):
            store.create(10, name="soon")
        with store.create(10, name="never"):
            pass
        store.put(b"", name="never")

    def test_a_draft_is_filled_and_written_to(self, store: Store) -> None:
        parts = [pattern(100), b"", pattern(200_000), b"end"]
        draft = store.create([len(part) for part in parts])
        draft.fill(parts)
        draft.write(1, b"xyz")
        draft.write(draft.nbytes - 1, b"!")
        draft.write(0, b"")
        with pytest.raises(InvalidArgument):
            draft.write(draft.nbytes - 1, b"ab")
        with pytest.raises(InvalidArgument):
            draft.write(-1, b"a")
        with pytest.raises(InvalidArgument):
            draft.fill([*parts, b"more"])
        with store.get(draft.seal()) as view:
            assert [bytes(part) for part in view.buffers] == [
                b"%cxyz" % parts[0][0] + parts[0][4:],
                b"",
                parts[2],
                b"en!",
            ]
        with pytest.raises(StoreClosed):
            draft.write(0, b"a")
        with pytest.raises(StoreClosed):
            draft.fill([b"a"])

    def test_one_of_several_drafts_gets_the_name(self, store: Store) -> None:
        drafts = [store.create(8, name="wanted", tag=tag) for tag in range(3)]
        first = drafts[1].seal()
        with pytest.raises(NameTaken):
            drafts[0].seal()
        kept = memoryview(drafts[2].buffer)
        with pytest.raises(NameTaken):
            drafts[2].seal()
        with pytest.raises(StoreClosed):  # it can still be written to through `kept`
            drafts[2].seal()
        del kept
        assert store.lookup("wanted") == first
        store.delete(first)
        second = drafts[0].seal()
        assert store.lookup("wanted") == second
        assert store.get(second).tag == 0

    def test_lookup_waits_for_a_name(self, store: Store) -> None:
        def put_later() -> None:
            time.sleep(0.15)
            store.put(b"abc", name="later")

        thread = threading.Thread(target=put_later)
        thread.start()
        handle = store.lookup("later", wait_s=_PATIENCE_S)
        thread.join()
        assert bytes(store.get(handle)) == b"abc"
        started_s = time.monotonic()
        with pytest.raises(NameNotFound):
            store.lookup("never", wait_s=0.1)
        assert 0.09 <= time.monotonic() - started_s < 5
        assert store.lookup("later", wait_s=math.inf) == handle
        for bad in (-1, math.nan):
            with pytest.raises(InvalidArgument):
                store.lookup("later", wait_s=bad)

    # ---- create ------------------------------------------------------------------------------------

    def test_create_in_place(self, store: Store) -> None:
        data = pattern(10_000)
        with store.create(len(data), name="made", tag=5) as draft:
            assert (draft.nbytes, draft.buffer.nbytes, draft.buffer.readonly) == (len(data), len(data), False)
            draft.buffer[:] = data
            with pytest.raises(InvalidArgument):
                _ = draft.handle
            handle = draft.seal()
        assert draft.handle == handle
        view = store.get(handle)
        assert bytes(view) == data
        assert (view.name, view.tag) == ("made", 5)
        assert not view.verify()

    def test_seal_can_compute_a_crc(self, store: Store) -> None:
        with store.create(1000) as draft:
            draft.buffer[:] = pattern(1000)
            handle = draft.seal(crc=True)
        assert store.get(handle).verify()

    def test_create_of_nothing(self, store: Store) -> None:
        with store.create(0) as draft:
            assert draft.buffer.nbytes == 0
            handle = draft.seal()
        assert bytes(store.get(handle)) == b""

    def test_leaving_without_seal_aborts(self, store: Store) -> None:
        with store.create(1000) as draft:
            draft.buffer[:3] = b"abc"
            assert store.stats().writing_objects == 1
        assert store.stats().writing_objects == store.stats().sealed_objects == 0
        with pytest.raises(ZeroDivisionError), store.create(1000):
            _ = 1 // 0
        store.create(1000)  # dropped at once
        gc.collect()
        assert store.stats().writing_objects == 0
        draft.abort()
        with pytest.raises(StoreClosed):
            draft.seal()
        with pytest.raises(StoreClosed):
            _ = draft.buffer

    def test_after_seal_the_buffer_is_dead(self, store: Store) -> None:
        draft = store.create(100)
        buffer = draft.buffer
        draft.seal()
        with pytest.raises(ValueError, match="released"):
            buffer[0] = 1
        for call in (draft.seal, draft.abort, lambda: draft.buffer):
            with pytest.raises(StoreClosed):
                call()

    def test_a_buffer_kept_after_seal_keeps_its_bytes(self, store: Store) -> None:
        draft = store.create(4096)
        kept = draft.buffer[100:200]
        handle = draft.seal()
        assert store.stats().pins_here == 1
        store.delete(handle)
        others = [store.put(bytes(4096)) for _ in range(100)]
        kept[:] = b"z" * 100
        assert all(bytes(store.get(other)) == bytes(4096) for other in others)
        del kept
        gc.collect()
        assert store.stats().pins_here == 0

    def test_a_buffer_kept_after_abort_keeps_its_bytes(self, store: Store) -> None:
        with store.create(4096) as draft:
            kept = draft.buffer[:]
        others = [store.put(bytes(4096)) for _ in range(100)]
        kept[:] = b"z" * 4096
        assert all(bytes(store.get(other)) == bytes(4096) for other in others)
        assert store.stats().writing_objects == 1
        del kept
        gc.collect()
        assert store.stats().writing_objects == 0

    @pytest.mark.parametrize("bad", [-1, 2**63, 2**64 + 1, 1.5, "1", None])
    def test_bad_sizes_are_refused(self, store: Store, bad: Any) -> None:
        with pytest.raises(InvalidArgument):
            store.create(bad)

    @pytest.mark.parametrize("bad", [-1, 2**64, 1.5])
    def test_bad_tags_are_refused(self, store: Store, bad: Any) -> None:
        with pytest.raises(InvalidArgument):
            store.put(b"", tag=bad)

    # ---- room --------------------------------------------------------------------------------------

    def test_full_then_emptied_then_full_again(self, store: Store) -> None:
        def fill() -> list[Handle]:
            handles = []
            error: StoreFull | None = None
            while error is None:
                try:
                    handles.append(store.put(data, tag=9))
                except StoreFull as full:
                    error = full
            assert error.asked_bytes >= len(data)
            assert error.largest_free_bytes < store.info.data_bytes / 2
            assert error.largest_free_bytes <= error.free_bytes
            assert any(holder.kind == "tag" and holder.ident == 9 for holder in error.holders)
            assert pickle.loads(pickle.dumps(error)).asked_bytes == error.asked_bytes
            return handles

        data = pattern(store.info.data_bytes // 20)
        first = fill()
        assert len(first) >= 10
        random.Random(2).shuffle(first)
        for handle in first:
            store.delete(handle)
        second = fill()
        assert len(second) >= len(first)
        assert all(bytes(store.get(handle)) == data for handle in second)

    def test_what_can_never_fit_says_so(self, store: Store) -> None:
        for nbytes in (store.info.data_bytes + 1, 2**62):
            with pytest.raises(StoreFull) as full:
                store.create(nbytes)
            assert full.value.asked_bytes >= nbytes
        store.put(b"works still")

    def test_one_object_can_take_nearly_everything(self, store: Store) -> None:
        largest = store.stats().largest_free_bytes
        assert largest > 0.9 * store.info.data_bytes
        with store.create(largest) as draft:
            draft.seal()
        store.delete(draft.handle)

    def test_put_waits_for_room(self, store: Store) -> None:
        largest = store.stats().largest_free_bytes
        with store.create(largest) as draft:
            everything = draft.seal()
        with pytest.raises(StoreFull):
            store.create(largest, wait_s=0.05)
        timer = threading.Timer(0.15, store.delete, [everything])
        timer.start()
        try:
            store.put(bytes(largest // 2), wait_s=_PATIENCE_S)
        finally:
            timer.join()

    def test_a_pinned_object_keeps_its_bytes_after_delete(self, store: Store) -> None:
        data = pattern(store.info.data_bytes // 4)
        handle = store.put(data)
        view = store.get(handle)
        store.delete(handle)
        with contextlib.suppress(StoreFull):
            while True:
                store.put(bytes(1 << 20))
        assert bytes(view) == data
        view.release()

    # ---- pins and endings --------------------------------------------------------------------------

    def test_pins_go_with_the_last_buffer(self, store: Store) -> None:
        handle = store.put([b"a" * 100, b"b" * 100])
        for take in (lambda v: v.data, lambda v: v.data[3:5], lambda v: v.buffers[1], memoryview, pickle.PickleBuffer):
            view = store.get(handle)
            kept: Any = take(view)
            assert store.stats().pins_here == 1
            view.release()
            view.release()
            assert store.stats().pins_here == 1
            del view
            assert store.stats().pins_here == 1
            del kept
            assert store.stats().pins_here == 0
        views = [store.get(handle) for _ in range(300)]
        assert store.stats().pins_here >= 1
        del views
        assert store.stats().pins_here == 0

    def test_a_released_view_is_closed(self, store: Store) -> None:
        with store.get(store.put([b"abc", b"def"], name="n")) as view:
            pass
        for call in (lambda: view.data, lambda: view.buffers, view.verify, lambda: view.name):
            with pytest.raises(StoreClosed):
                call()
        with pytest.raises(ValueError, match="released"):
            memoryview(view)
        assert view.nbytes == 64 + 3

    def test_after_close_every_call_is_a_typed_error(self, store: Store) -> None:
        handle = store.put([b"abc", b"def"], name="n")
        view = store.get(handle)
        draft = store.create(10)
        store.close()
        store.close()
        assert store.closed
        calls: list[Callable[[], object]] = [
            lambda: store.put(b""),
            lambda: store.put([b"", b""], name="x", wait_s=1),
            lambda: store.create(1),
            lambda: store.create(1, name="x"),
            lambda: store.get(handle),
            lambda: store.delete(handle),
            lambda: store.lookup("n"),
            lambda: store.find(b""),
            store.stats,
            store.hosts,
            store.processes,
            lambda: list(store.objects()),
            store.tags,
            store.fsck,
            lambda: store.evict_host(1),
            draft.seal,
            draft.abort,
            lambda: draft.buffer,
            view.verify,
            lambda: view.name,
        ]
        for call in calls:
            with pytest.raises(StoreClosed):
                call()
        assert bytes(view)[:3] == b"abc"
        assert store.info.store_uuid == handle.store_uuid

    def test_buffers_outlive_close(self, store: Store, store_path: str, state_dir: Path) -> None:
        data = pattern(100_000)
        handle = store.put(data)
        kept = memoryview(store.get(handle))
        draft = store.create(50_000)
        written = draft.buffer[:]
        store.close()
        del draft
        gc.collect()
        written[:] = b"w" * 50_000
        with gismo_core.open(store_path, state_dir=state_dir) as again:
            again.delete(handle)
            with contextlib.suppress(StoreFull):
                while True:
                    again.put(bytes(100_000))
            assert bytes(kept) == data
            assert bytes(written) == b"w" * 50_000
            del written, kept
            gc.collect()

    def test_reopened_store_has_its_objects(self, store: Store, store_path: str, state_dir: Path) -> None:
        handle = store.put(b"abc", name="n")
        store.close()
        with gismo_core.open(store_path, state_dir=state_dir) as again:
            assert bytes(again.get(handle)) == b"abc"
            assert again.lookup("n") == handle

    def test_two_opens_share_everything(self, store: Store, store_path: str, state_dir: Path) -> None:
        with gismo_core.open(store_path, state_dir=state_dir) as other:
            handle = store.put(b"abc", name="n")
            view = other.get(other.lookup("n"))
            store.delete(handle)
            with pytest.raises(ObjectGone):
                other.get(handle)
            assert bytes(view) == b"abc"
            view.release()

    def test_a_store_cannot_be_pickled(self, store: Store) -> None:
        with pytest.raises(TypeError, match="open"):
            pickle.dumps(store)
        with pytest.raises(TypeError, match="handle"):
            pickle.dumps(store.create(10))

    def test_copies_of_a_view_are_the_view(self, store: Store) -> None:
        view = store.get(store.put(b"abc"))
        assert copy.copy(view) is view
        assert copy.deepcopy([view])[0] is view

    def test_views_pickle(self, store: Store) -> None:
        parts = [pattern(1000), pattern(77)]
        view = store.get(store.put(parts, name="n", tag=3))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            loaded = pickle.loads(pickle.dumps(view, protocol))
            assert [bytes(part) for part in loaded.buffers] == parts
            assert (loaded.handle, loaded.name, loaded.tag, loaded.created) == (view.handle, "n", 3, view.created)
            assert memoryview(loaded).readonly
            with pytest.raises(StoreClosed):
                loaded.verify()

    def test_views_pickle_out_of_band_without_a_copy(self, store: Store) -> None:
        handle = store.put(pattern(1 << 20))
        view = store.get(handle)
        out: list[pickle.PickleBuffer] = []
        packed = pickle.dumps(view, 5, buffer_callback=out.append)
        assert len(packed) < 2000
        loaded = pickle.loads(packed, buffers=out)
        del view, out
        gc.collect()
        assert store.find(loaded.data) == handle
        assert store.stats().pins_here == 1
        del loaded
        gc.collect()
        assert store.stats().pins_here == 0

    # ---- threads, forks, processes, hosts ------------------------------------------------------------

    def test_threads(self, store: Store) -> None:
        shared = store.put(pattern(10_000))
        failures: list[BaseException] = []

        def work(seed: int) -> None:
            try:
                chance = random.Random(seed)
                mine: list[tuple[Handle, bytes]] = []
                for _ in range(300):
                    if len(mine) < 10 or chance.random() < 0.5:
                        data = chance.randbytes(chance.choice((0, 10, 1000, 100_000)))
                        mine.append((store.put(data), data))
                    else:
                        handle, data = mine.pop(chance.randrange(len(mine)))
                        assert bytes(store.get(handle)) == data
                        store.delete(handle)
                    assert len(store.get(shared)) == 10_000
                for handle, data in mine:
                    assert bytes(store.get(handle)) == data
                    store.delete(handle)
            except BaseException as error:  # noqa: BLE001 - shown by the test's thread
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures
        assert store.stats().sealed_objects == 1
        assert store.stats().pins_here == 0

    def test_close_while_threads_work(self, store: Store) -> None:
        ends: list[object] = []

        def work() -> None:
            try:
                while True:
                    store.delete(store.put(bytes(2_000_000)))
                    kept = store.get(store.put(b"abc"))
                    with store.create(300_000) as draft:
                        draft.buffer[:] = bytes(300_000)
                        store.delete(draft.seal(crc=True))
                    store.delete(kept.handle)
                    store.stats()
                    with contextlib.suppress(NameNotFound):
                        store.lookup("never", wait_s=0.01)
            except (StoreClosed, StoreFull) as error:
                ends.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        store.close()
        for thread in threads:
            thread.join(_PATIENCE_S)
        assert len(ends) == 4

    def test_close_in_the_middle_of_a_copy(self, store: Store, store_path: str, state_dir: Path) -> None:
        data = bytes(store.info.data_bytes // 3)

        def work(opened: Store) -> None:
            with contextlib.suppress(StoreClosed):
                while True:
                    opened.delete(opened.put(data))

        for round_number in range(8):
            opened = gismo_core.open(store_path, state_dir=state_dir)
            thread = threading.Thread(target=work, args=(opened,))
            thread.start()
            time.sleep(0.02 + 0.005 * round_number)
            opened.close()
            thread.join(_PATIENCE_S)
            assert not thread.is_alive()
            for one in store.objects():
                if one.state == ObjectState.SEALED:
                    store.delete(one.handle)

    def test_a_forked_child_reads_and_releases_for_itself(self, store: Store) -> None:
        data = pattern(200_000)
        handle = store.put(data)
        view = store.get(handle)
        inherited = memoryview(view)

        def child() -> None:
            nonlocal inherited
            assert bytes(inherited) == data
            assert bytes(store.get(handle)) == data
            view.release()
            del inherited
            gc.collect()
            assert store.stats().pins_here == 0

        in_fork(child)
        assert store.stats().pins_here == 1
        store.delete(handle)
        with contextlib.suppress(StoreFull):
            while True:
                store.put(bytes(200_000))
        assert bytes(inherited) == data
        del inherited
        view.release()

    def test_a_forked_child_takes_part(self, store: Store) -> None:
        reader, writer = os.pipe()

        def child() -> None:
            handle = store.put(b"from the child", name="child")
            os.write(writer, handle.to_bytes())

        in_fork(child)
        handle = Handle.from_bytes(os.read(reader, 48))
        os.close(reader)
        os.close(writer)
        assert bytes(store.get(handle)) == b"from the child"
        assert store.lookup("child") == handle

    def test_a_child_may_close_and_the_parent_goes_on(self, store: Store) -> None:
        handle = store.put(b"abc")
        in_fork(store.close)
        assert bytes(store.get(handle)) == b"abc"
        store.put(b"def")

    def test_a_child_cannot_end_its_parents_object(self, store: Store) -> None:
        draft = store.create(100)
        draft.buffer[:] = b"p" * 100
        extra = store.create(100)

        def child() -> None:
            nonlocal extra
            for call in (draft.seal, draft.abort):
                with pytest.raises(StorePermissionError):
                    call()
            del extra
            gc.collect()

        in_fork(child)
        assert store.stats().writing_objects == 2
        assert bytes(store.get(draft.seal())) == b"p" * 100
        assert extra.seal() != draft.handle

    def test_pins_of_a_child_outlive_its_parents(self, store: Store) -> None:
        data = pattern(300_000)
        handle = store.put(data)
        view = store.get(handle)
        go_reader, go_writer = os.pipe()

        def child() -> None:
            os.close(go_writer)
            os.read(go_reader, 1)
            assert bytes(view) == data

        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child()
                code = 0
            except BaseException:  # noqa: BLE001 - the child must not run on into the test session
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(go_reader)
        view.release()
        store.delete(handle)
        with contextlib.suppress(StoreFull):
            while True:
                store.put(bytes(300_000))
        os.close(go_writer)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def test_many_processes(self, store: Store, store_path: str, state_dir: Path) -> None:
        code = """
chance = random.Random(int(args[2]))
with gismo_core.open(args[0], state_dir=args[1]) as store:
    common = store.lookup("common", wait_s=30)
    mine = []
    for number in range(200):
        assert bytes(store.get(common)) == b"c" * 1000
        data = chance.randbytes(chance.choice((1, 100, 5000, 70000)))
        mine.append((store.put(data, tag=int(args[2])), data))
        if len(mine) > 20:
            handle, data = mine.pop(chance.randrange(len(mine)))
            assert bytes(store.get(handle)) == data
            store.delete(handle)
    for handle, data in mine:
        assert bytes(store.get(handle)) == data
        store.delete(handle)
"""
        processes = [python(code, store_path, str(state_dir), str(seed)) for seed in range(6)]
        store.put(b"c" * 1000, name="common")
        wait_all(processes)
        eventually(lambda: store.stats().sealed_objects == 1, "only the common object is left")

    def test_the_death_of_a_process_costs_only_its_own(self, store: Store, store_path: str, state_dir: Path) -> None:
        code = """
store = gismo_core.open(args[0], state_dir=args[1])
sealed = [store.put(b"s" * 1000, name=f"sealed-{i}") for i in range(50)]
drafts = [store.create(1000) for _ in range(200)]
views = [store.get(handle) for handle in sealed]
print("ready", flush=True)
time.sleep(600)
"""
        victim = python(code, store_path, str(state_dir))
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
        assert store.stats().writing_objects == 200
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        for index in range(50):
            with store.get(store.lookup(f"sealed-{index}")) as view:
                assert bytes(view) == b"s" * 1000
            store.delete(view.handle)
        eventually(lambda: store.stats().writing_objects == 0, "the half-written objects of the dead are free")

        def pins_of_the_dead_are_gone() -> bool:
            store.put(b"")
            return store.stats().deleted_objects == 0

        eventually(pins_of_the_dead_are_gone, "what only the dead had pinned is free")

    def test_hosts_share_objects(self, store: Store, store_path: str, tmp_path: Path) -> None:
        if store.info.max_hosts < 2:
            pytest.skip("a store for one host")
        with gismo_core.open(store_path, state_dir=tmp_path / "host-b") as other:
            assert {host.host_id for host in other.hosts() if host.is_self} != {
                host.host_id for host in store.hosts() if host.is_self
            }
            data = pattern(100_000)
            handle = store.put(data, name="shared")
            assert other.lookup("shared", wait_s=_PATIENCE_S) == handle
            view = other.get(handle)
            assert bytes(view) == data
            store.delete(handle)
            with contextlib.suppress(StoreFull):
                while True:
                    store.put(bytes(100_000))
            assert bytes(view) == data
            with pytest.raises(ObjectGone):
                store.get(handle)
            view.release()

    def test_hosts_delete_each_others_objects(self, store: Store, store_path: str, tmp_path: Path) -> None:
        if store.info.max_hosts < 2:
            pytest.skip("a store for one host")
        with gismo_core.open(store_path, state_dir=tmp_path / "host-b") as other:
            handles = [store.put(pattern(5000, index)) for index in range(100)]
            for handle in handles:
                other.delete(handle)
            for handle in handles:
                with pytest.raises(ObjectGone):
                    other.get(handle)
            eventually(lambda: store.stats().sealed_objects == 0, "the owner has deleted them")
            for handle in handles:
                with pytest.raises(ObjectGone):
                    store.get(handle)

    # ---- seeing ------------------------------------------------------------------------------------

    def test_objects_are_listed(self, store: Store) -> None:
        put = store.put(b"abc", name="named", tag=3)
        view = store.get(put)
        draft = store.create(10_000)
        listed = {one.handle.slot: one for one in store.objects()}
        assert len(listed) == 2
        one = listed[put.slot]
        assert (one.handle, one.state, one.nbytes, one.name, one.tag) == (put, ObjectState.SEALED, 3, "named", 3)
        assert one.pins_here == 1
        assert one.extent_bytes >= 3
        assert one.payload_crc is not None
        assert {item.state for item in listed.values()} == {ObjectState.SEALED, ObjectState.WRITING}
        view.release()
        draft.abort()
        # Deleted and aborted objects may be listed until their room is used again.
        assert [item.handle for item in store.objects() if item.state != ObjectState.DELETED] == [put]

    def test_stats_count(self, store: Store) -> None:
        before = store.stats()
        handles = [store.put(bytes(10_000), tag=4) for _ in range(20)]
        store.get(handles[0]).release()
        store.delete(handles[0])
        after = store.stats()
        assert after.sealed_objects - before.sealed_objects == 19
        assert after.puts - before.puts == 20
        assert after.gets - before.gets == 1
        assert after.deletes - before.deletes == 1
        assert after.put_bytes - before.put_bytes == 200_000
        assert after.used_bytes >= 19 * 10_000
        assert after.free_bytes < before.free_bytes
        assert after.largest_free_bytes <= after.free_bytes <= after.data_bytes
        (tag,) = store.tags()
        assert (tag.tag, tag.objects) == (4, 19)

    def test_processes_and_hosts_are_listed(self, store: Store, store_path: str, state_dir: Path) -> None:
        (host,) = [one for one in store.hosts() if one.is_self]
        assert host.state.name == "ACTIVE"
        assert store.stats().lane == host.host_id
        me = [one for one in store.processes() if one.is_self]
        assert me
        assert me[0].pid == os.getpid()
        assert all(one.alive for one in me)
        view = store.get(store.put(b"abc"))
        draft = store.create(10)
        assert sum(one.pins for one in store.processes()) == 1
        assert sum(one.writing for one in store.processes()) == 1
        view.release()
        draft.abort()

    def test_find(self, store: Store) -> None:
        first, second = store.put(pattern(100)), store.put(pattern(5000))
        view, other = store.get(first), store.get(second)
        assert store.find(view) == first
        assert store.find(other.data[4000:]) == second
        assert store.find(b"elsewhere") is None
        view.release()
        other.release()

    def test_fsck_of_a_busy_store_is_clean(self, store: Store) -> None:
        handles = [store.put(pattern(1000, index)) for index in range(50)]
        view = store.get(handles[0])
        store.delete(handles[0])
        with store.create(100):
            report = store.fsck(verify=True)
            assert report.ok, report.findings
            assert report.payloads_verified >= 49
            assert report.leaked_bytes == 0
        view.release()

    def test_read_only_open_looks_and_changes_nothing(self, store: Store, store_path: str) -> None:
        handle = store.put(b"abc", name="n")
        with gismo_core.open(store_path, read_only=True) as looker:
            assert [one.handle for one in looker.objects()] == [handle]
            assert looker.stats().sealed_objects == 1
            assert looker.fsck().ok
            for call in (lambda: looker.put(b""), lambda: looker.create(1), lambda: looker.delete(handle)):
                with pytest.raises(GismoError):
                    call()
        assert bytes(store.get(handle)) == b"abc"
