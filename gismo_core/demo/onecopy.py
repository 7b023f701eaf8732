"""Act: one large object, put once, read by every host where it lies."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import time
from collections.abc import Iterator

from gismo_core import Handle, Store, StoreFull
from gismo_core.cli.output import size_text
from gismo_core.demo.fleet import Fleet
from gismo_core.demo.plan import MIB
from gismo_core.demo.report import DemoError
from gismo_core.demo.stage import Stage, count, gb_s, ms, wait_until

_ROUNDS = 3
_ALIGN = 64
_LAST_START = (_ROUNDS - 1) * _ALIGN
_SMALLEST_BYTES = MIB
_MARGIN_BYTES = MIB  # beside the large object: its name, a table of names, drafts of the moment
_WAIT_S = 5.0
_TABLES_BYTES = MIB  # what tables of names may grow by meanwhile


@contextlib.contextmanager
def _warm_copy(nbytes: int) -> Iterator[ctypes.c_void_p]:
    """Private memory of this length, every page there."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    with mmap.mmap(-1, nbytes, flags) as memory:
        exported = ctypes.c_char.from_buffer(memory)
        try:
            yield ctypes.c_void_p(ctypes.addressof(exported))
        finally:
            del exported
            gc.collect()


def _time_memcpy(target: ctypes.c_void_p, data: bytes, nbytes: int) -> float:
    begin = time.perf_counter()
    ctypes.memmove(target, data, nbytes)
    return time.perf_counter() - begin


def _time_put(store: Store, data: memoryview) -> tuple[float, Handle]:
    begin = time.perf_counter()
    handle = store.put(data, name="demo/large", wait_s=_WAIT_S)
    return time.perf_counter() - begin, handle


def _room(stage: Stage, store: Store) -> int:
    """As large as planned, or what fits in one piece."""
    nbytes = min(stage.plan.large_bytes, store.stats().largest_free_bytes - _MARGIN_BYTES) // MIB * MIB
    while nbytes >= _SMALLEST_BYTES:
        try:
            store.create(nbytes + _MARGIN_BYTES).abort()
            return nbytes
        except StoreFull as error:  # what is asked for between two looks can be in the way
            stage.screen.say(f"   no room for {size_text(nbytes)} in one piece, trying less ({error})")
            nbytes = nbytes * 3 // 4 // MIB * MIB
    raise DemoError("there is no room for even 1 MiB beside the writers' objects; `gismo top` would show what holds it")


def play(stage: Stage, fleet: Fleet) -> None:
    """Put and memcpy by turns; then all hosts get it; then one of them deletes it under the others' eyes."""
    store = fleet.hosts[0].store
    wait_until(fleet.settled)
    nbytes = _room(stage, store)
    stage.screen.act(f"One object of {size_text(nbytes)}, one copy, {len(fleet.hosts)} hosts")
    # Each round puts other bytes: those of the round before still lie where the next ones go.
    data = stage.content.large(nbytes + _ROUNDS * _ALIGN)
    puts, copies = [], []
    wait_until(fleet.settled)
    before = fleet.used_bytes()
    with _warm_copy(nbytes) as target, memoryview(data) as source:
        for start in range(0, _ROUNDS * _ALIGN, _ALIGN):
            copies.append(_time_memcpy(target, data, nbytes))
            seconds, handle = _time_put(store, source[start : start + nbytes])
            puts.append(seconds)
            if start != _LAST_START:
                store.delete(handle)
                wait_until(fleet.settled)
    del data
    put_used = fleet.used_bytes()
    gets = fleet.tell("get", fleet.readers, handle=str(handle))
    get_used = fleet.used_bytes()
    seen = fleet.tell("look", fleet.readers, start=_LAST_START)

    put_s, memcpy_s = min(puts), min(copies)
    get_us = [one["median_us"] for one in gets]
    first_us = [one["first_us"] for one in gets]
    stage.note(
        "one_copy",
        nbytes=nbytes,
        put_s=puts,
        memcpy_s=copies,
        get_us=get_us,
        first_get_us=first_us,
        read_s=[one["s"] for one in seen],
        used_bytes={"before": before, "after_put": put_used, "after_gets": get_used},
    )
    stage.screen.table(
        ("what", ">time", ">rate"),
        [
            ("memcpy of as many bytes, one thread, private memory", ms(memcpy_s), gb_s(nbytes, memcpy_s)),
            ("put, the first: copy, CRC and page faults", ms(puts[0]), gb_s(nbytes, puts[0])),
            ("put, best of 3: copy and CRC, by all idle cores", ms(put_s), gb_s(nbytes, put_s)),
            *(
                (
                    f"get by host {host.number}, first / median of 501",
                    f"{first_us[host.number]:.1f} / {get_us[host.number]:.1f} us",
                    "no copy",
                )
                for host in fleet.hosts
            ),
            *(
                (
                    f"host {host.number} compares every byte, all hosts at once",
                    ms(seen[host.number]["s"]),
                    gb_s(nbytes, seen[host.number]["s"]),
                )
                for host in fleet.hosts
            ),
        ],
    )
    stage.expect(
        "the put took its bytes once",
        nbytes <= put_used - before <= nbytes * 9 // 8 + _TABLES_BYTES,
        f"{size_text(put_used - before)} more in use",
    )
    stage.expect(
        f"{len(fleet.hosts)} hosts that hold it take nothing more",
        get_used <= put_used,
        f"{count(get_used - put_used)} B more in use",
    )
    stage.expect(
        "every host sees every byte of it",
        all(one["right"] and one["nbytes"] == nbytes for one in seen),
        f"{sum(one['right'] for one in seen)} of {len(seen)} hosts",
    )
    stage.expect(
        "a get costs no copy",
        max(get_us) < memcpy_s * 1e6 / 20,
        f"{max(get_us):.1f} us at most, a memcpy takes {memcpy_s * 1e6:,.0f} us",
    )
    _delete(stage, fleet, handle, nbytes, before)
    stage.conclude(
        f"put of {size_text(nbytes)}",
        f"{ms(put_s)} ({gb_s(nbytes, put_s)}); memcpy {ms(memcpy_s)} ({gb_s(nbytes, memcpy_s)})",
    )
    stage.conclude(f"get of it, {len(gets)} hosts, one copy", ", ".join(f"{one:.1f} us" for one in get_us))


def _delete(stage: Stage, fleet: Fleet, handle: Handle, nbytes: int, before: int) -> None:
    deleter, keeper = fleet.readers[1], fleet.readers[2]
    deleter.ask("delete", handle=str(handle))
    for reader in fleet.readers:
        if reader is not keeper:
            reader.ask("release")
    time.sleep(0.05)
    kept = keeper.ask("look", start=_LAST_START)
    held = fleet.used_bytes() - before
    begin_s = time.monotonic()
    keeper.ask("release")
    freed_s = wait_until(lambda: fleet.settled() and fleet.used_bytes() <= before + _TABLES_BYTES, begin_s)
    stage.note("one_copy", freed_after_last_view_s=freed_s)
    stage.expect(
        f"deleted by host {deleter.host}, it stays whole under the view of host {keeper.host}",
        kept["right"] and held >= nbytes,
        f"{'every byte as put' if kept['right'] else 'other bytes'}, {size_text(max(0, held))} still in use",
    )
    stage.expect("its room comes back after the last view", freed_s is not None, ms(freed_s))
