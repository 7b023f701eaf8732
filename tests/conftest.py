"""Fixtures for tests of the Python layer: stores on /dev/shm, each with a state directory of its own."""

from __future__ import annotations

import itertools
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gismo_core

MiB = 1024**2

# A shell starts what runs in its background (`make test &`, nohup) with SIGINT ignored, and every child inherits that: then the
# tests of Ctrl-C would test nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def shm(tmp_path: Path) -> Iterator[Path]:
    """A folder on tmpfs, gone after the test."""
    folder = Path(tempfile.mkdtemp(prefix="gismo-test-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make_store(shm: Path) -> Callable[..., str]:
    """make_store(size=..., **options) formats another store and returns its path."""
    numbers = itertools.count()

    def make(size: int = 16 * MiB, **options: object) -> str:
        path = str(shm / f"pool-{next(numbers)}")
        gismo_core.format(path, size=size, **options)  # type: ignore[arg-type]
        return path

    return make


@pytest.fixture
def store_path(make_store: Callable[..., str]) -> str:
    """A fresh store of 16 MiB."""
    return make_store()


@pytest.fixture
def store(store_path: str, shm: Path) -> Iterator[gismo_core.Store]:
    """The fresh store, open as a host of its own."""
    with gismo_core.open(store_path, state_dir=shm / "state") as opened:
        yield opened
