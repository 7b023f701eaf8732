"""Any sequence of calls does what a dict would do: a hypothesis state machine against a trivial reference store.

Two hosts take part (two state directories), the first of them with two opens. What is promised at once on one host
is promised soon on another, so the hosts agree by waiting where the design says "within 10 ms".
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

import gismo_core
from gismo_core import Draft, Handle, NameNotFound, NameTaken, ObjectGone, ObjectState, Store, StoreClosed, View

SIZE_BYTES = 32 * 1024**2
NAMES = ("a", "b", "é" * 100)
SETTLE_S = 10.0
_Made = TypeVar("_Made")


@dataclass
class Object:
    """What the reference knows of a sealed object."""

    data: list[bytes]
    host: int
    name: str | None
    tag: int
    deleted_by: int | None = None


@dataclass(eq=False)
class Written:
    """An object being written."""

    draft: Draft
    data: bytes
    host: int
    name: str | None
    tag: int


@dataclass(eq=False)
class Held:
    """A view or a buffer of one, and what must stay in it."""

    memory: View | memoryview
    data: bytes


@dataclass
class Reference:
    """The trivial store."""

    objects: dict[Handle, Object] = field(default_factory=dict)
    drafts: list[Written] = field(default_factory=list)

    def live(self) -> dict[Handle, Object]:
        return {handle: one for handle, one in self.objects.items() if one.deleted_by is None}

    def called(self, name: str) -> set[Handle]:
        """What a lookup may find: the lowest host's. Writers that seal the same name at once may both have it."""
        named = {handle: one.host for handle, one in self.live().items() if one.name == name}
        return {handle for handle, host in named.items() if host == min(named.values())}


payloads = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda byte, length: bytes([byte]) * length, st.integers(0, 255), st.integers(0, 300_000)),
)
names = st.one_of(st.none(), st.sampled_from(NAMES))
tags = st.sampled_from((0, 1, 2**64 - 1))
opens = st.integers(0, 2)


class StoreModel(RuleBasedStateMachine):
    """The rules. Opens 0 and 1 are host A, open 2 is host B."""

    handles = Bundle("handles")
    drafts = Bundle("drafts")
    views = Bundle("views")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="gismo-model-", dir="/dev/shm"))
        self.path = str(self.folder / "pool")
        gismo_core.format(self.path, size=SIZE_BYTES)
        self.reference = Reference()
        self.held: list[Held] = []
        self.stores: list[Store] = []

    @initialize()
    def open_all(self) -> None:
        self.stores = [self.open(number) for number in range(3)]

    def open(self, number: int) -> Store:
        return gismo_core.open(self.path, state_dir=self.folder / f"host-{self.host(number)}")

    @staticmethod
    def host(number: int) -> int:
        return 0 if number < 2 else 1

    # ---- making ----

    @rule(target=handles, number=opens, data=st.lists(payloads, min_size=1, max_size=4), name=names, tag=tags)
    def put(self, number: int, data: list[bytes], name: str | None, tag: int) -> Any:
        host = self.host(number)
        if name is not None and self.reference.called(name):
            with pytest.raises(NameTaken):
                self.stores[number].put(data, name=name, tag=tag)
            return multiple()
        given = data if len(data) > 1 else data[0]
        handle = self.once_the_name_is_free(lambda: self.stores[number].put(given, name=name, tag=tag))
        assert handle not in self.reference.objects
        self.reference.objects[handle] = Object(data, host, name, tag)
        return handle

    @staticmethod
    def once_the_name_is_free(call: Callable[[], _Made]) -> _Made:
        """A name whose object another host deleted is free when the owner has heard of it."""
        end_s = time.monotonic() + SETTLE_S
        while True:
            try:
                return call()
            except NameTaken:
                assert time.monotonic() < end_s, "the name of a deleted object is still taken"
                time.sleep(0.001)

    @rule(target=drafts, number=opens, data=payloads, name=names, tag=tags)
    def create(self, number: int, data: bytes, name: str | None, tag: int) -> Any:
        host = self.host(number)
        if name is not None and self.reference.called(name):
            with pytest.raises(NameTaken):
                self.stores[number].create(len(data), name=name, tag=tag)
            return multiple()
        draft = self.once_the_name_is_free(lambda: self.stores[number].create(len(data), name=name, tag=tag))
        draft.buffer[:] = data
        written = Written(draft, data, host, name, tag)
        self.reference.drafts.append(written)
        return written

    @rule(target=handles, written=consumes(drafts), crc=st.booleans())
    def seal(self, written: Written, crc: bool) -> Any:
        if written not in self.reference.drafts:
            with pytest.raises(StoreClosed):
                written.draft.seal()
            return multiple()
        if written.name is not None and self.reference.called(written.name):
            with pytest.raises(NameTaken):
                written.draft.seal(crc=crc)
            self.reference.drafts.remove(written)
            written.draft.abort()
            return multiple()
        handle = self.once_the_name_is_free(lambda: written.draft.seal(crc=crc))
        self.reference.drafts.remove(written)
        self.reference.objects[handle] = Object([written.data], written.host, written.name, written.tag)
        return handle

    @rule(written=consumes(drafts), drop=st.booleans())
    def abort(self, written: Written, drop: bool) -> None:
        if written not in self.reference.drafts:
            return
        self.reference.drafts.remove(written)
        if drop:
            written.draft.__exit__(None, None, None)
        else:
            written.draft.abort()

    # ---- reading ----

    @rule(target=views, number=opens, handle=handles)
    def get(self, number: int, handle: Handle) -> Any:
        one = self.reference.objects[handle]
        if one.deleted_by is not None:
            self.gone(number, handle, one)
            return multiple()
        view = self.stores[number].get(handle)
        assert [bytes(part) for part in view.buffers] == one.data
        assert (view.name, view.tag, view.handle) == (one.name, one.tag, handle)
        held = Held(view, bytes(view))
        self.held.append(held)
        return held

    def gone(self, number: int, handle: Handle, one: Object) -> None:
        """At once on the host that deleted it and on its owner's after 10 ms; elsewhere as soon as the owner knows."""
        end_s = time.monotonic() + SETTLE_S
        while True:
            try:
                view = self.stores[number].get(handle)
            except ObjectGone:
                return
            assert self.host(number) != one.deleted_by, "still there for the host that deleted it"
            assert [bytes(part) for part in view.buffers] == one.data
            view.release()
            assert time.monotonic() < end_s, "a deleted object is still there on another host"
            time.sleep(0.001)

    @rule(held=consumes(views), keep_buffer=st.booleans())
    def drop(self, held: Held, keep_buffer: bool) -> None:
        view = held.memory
        if held not in self.held or not isinstance(view, View):
            return
        if keep_buffer:
            held.memory = view.data
        else:
            self.held.remove(held)
        view.release()

    @rule()
    def drop_all(self) -> None:
        self.held.clear()

    @rule(number=opens, name=st.sampled_from(NAMES))
    def lookup(self, number: int, name: str) -> None:
        expected = self.reference.called(name)
        end_s = time.monotonic() + SETTLE_S
        while True:
            try:
                if self.stores[number].lookup(name) in expected:
                    return
            except NameNotFound:
                if not expected:
                    return
            # Only what another host did may take its time.
            assert time.monotonic() < end_s, f"{name!r} is not among {expected!r}"
            time.sleep(0.001)

    # ---- ending ----

    @rule(number=opens, handle=handles)
    def delete(self, number: int, handle: Handle) -> None:
        one = self.reference.objects[handle]
        if one.deleted_by is not None:
            self.gone(number, handle, one)
            with pytest.raises(ObjectGone):
                self.stores[number].delete(handle)
            return
        self.stores[number].delete(handle)
        one.deleted_by = self.host(number)
        with pytest.raises(ObjectGone):
            self.stores[number].get(handle)

    @rule(number=opens)
    def reopen(self, number: int) -> None:
        self.stores[number].close()
        closed = [one for one in self.reference.drafts if one.draft._store is self.stores[number]._native]
        for one in closed:
            self.reference.drafts.remove(one)
            one.draft._end_memory()
        self.stores[number] = self.open(number)
        gc.collect()

    @invariant()
    def held_bytes_never_change(self) -> None:
        for held in self.held:
            assert memoryview(held.memory) == held.data

    def teardown(self) -> None:
        try:
            if self.stores:
                self.held.clear()
                for one in self.reference.drafts:
                    one.draft.abort()
                self.settle()
                for store in self.stores:
                    store.close()
        finally:
            shutil.rmtree(self.folder)

    def settle(self) -> None:
        """In the end exactly the reference's objects are there, and nothing leaked."""
        live = self.reference.live()
        end_s = time.monotonic() + SETTLE_S
        while True:
            listed = {one.handle for one in self.stores[0].objects() if one.state != ObjectState.DELETED}
            if listed == set(live) or time.monotonic() > end_s:
                break
            time.sleep(0.002)  # deletions of the other host's objects are on their way
        assert listed == set(live)
        for store in (self.stores[0], self.stores[2]):
            report = store.fsck(verify=True)
            assert report.ok, report.findings
            assert report.leaked_bytes == 0


TestStoreModel = StoreModel.TestCase
TestStoreModel.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
