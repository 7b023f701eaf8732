"""Sweeping what dead Ray clusters left: the witnesses, with real processes and a real store, without Ray."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gismo_core
from as_user import as_user
from gismo_core.ray import clusters, record
from gismo_core.ray.clusters import Presence

HOLD = """
import sys, time
import gismo_core
from gismo_core.ray.clusters import Presence, Witness
store = gismo_core.open(sys.argv[1], state_dir=sys.argv[2])
witness = Witness(store, Presence(sys.argv[3], store.stats().lane, "127.0.0.1:1"))
print("held", flush=True)
time.sleep(600)
"""
OWN, OTHER = bytes([1] * 28), bytes([2] * 28)


@pytest.fixture
def pool(shm: Path) -> Path:
    gismo_core.format(shm / "pool", size=16 << 20)
    return shm / "pool"


@contextlib.contextmanager
def holder(pool: Path, state_dir: Path, cluster: bytes) -> Iterator[None]:
    """A process of that cluster on that host, SIGKILLed at the end."""
    command = [sys.executable, "-c", HOLD, str(pool), str(state_dir), cluster.hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.kill()


def put_record(store: gismo_core.Store, cluster: bytes) -> gismo_core.Handle:
    return store.put(b"x" * 1000, tag=record.tag_of(cluster[:4]))


def swept(store: gismo_core.Store, handles: dict[bytes, bytes], gone: bool = True) -> set[gismo_core.Handle]:
    return set(clusters.sweep(store, lambda: handles, OWN.hex(), lambda _: gone))


def test_records_of_the_dead_are_swept_and_of_the_living_are_not(pool: Path, tmp_path: Path) -> None:
    with gismo_core.open(pool, state_dir=tmp_path) as store:
        with holder(pool, tmp_path, OTHER):
            handle = put_record(store, OTHER)
            known = {handle.raw: OTHER}
            assert swept(store, known) == set()
        assert swept(store, known, gone=False) == set()  # its GCS answers: somebody without the store may live
        assert swept(store, known) == {handle}
        assert not store.sealed(tag=clusters.TAG, mask=clusters.TAG_MASK)  # its presence is gone too


def test_another_hosts_presence_is_only_its_own_to_take_away(pool: Path, tmp_path: Path) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    near.mkdir()
    far.mkdir()
    with gismo_core.open(pool, state_dir=near) as store, gismo_core.open(pool, state_dir=far) as there:
        with holder(pool, far, OTHER):
            handle = put_record(there, OTHER)
        assert swept(store, {handle.raw: OTHER}) == set()  # for all that this host can know, it lives there
        assert swept(there, {handle.raw: OTHER}) == {handle}
        assert swept(store, {handle.raw: OTHER}) == {handle}


def test_the_own_cluster_is_never_swept(pool: Path, tmp_path: Path) -> None:
    with gismo_core.open(pool, state_dir=tmp_path) as store:
        handle = put_record(store, OWN)
        assert swept(store, {handle.raw: OWN}) == set()


def test_a_gcs_that_refuses_is_gone_and_one_that_is_silent_is_not() -> None:
    assert clusters.gcs_is_gone(Presence("00", 0, "127.0.0.1:1"))
    assert not clusters.gcs_is_gone(Presence("00", 0, "no address"))


@pytest.mark.root
def test_a_cluster_of_another_user_is_swept_too(shm: Path) -> None:
    """And one whose processes have two users, as two pods may, holds its records for both."""
    shm.chmod(0o755)
    gismo_core.format(shm / "pool", size=16 << 20, mode=0o666)
    (shm / "state").mkdir()
    (shm / "state").chmod(0o777)

    def alive() -> bytes:
        os.umask(0o022)
        with gismo_core.open(shm / "pool", state_dir=shm / "state") as store:
            witness = clusters.Witness(store, Presence(OTHER.hex(), store.host_id, "127.0.0.1:1"))
            handle = put_record(store, OTHER).raw
            witness.close()
            return handle

    def dead(handle: bytes) -> bool:
        with gismo_core.open(shm / "pool", state_dir=shm / "state") as store:
            return gismo_core.Handle(handle) in swept(store, {handle: OTHER})

    with gismo_core.open(shm / "pool", state_dir=shm / "state"):  # root's, as an agent prepares it
        first = as_user(1000, alive)
        as_user(1_234_567, alive)
        assert as_user(1_234_567, lambda: dead(first))
