"""Fixtures for tests of the integration with Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import ray_pool


@pytest.fixture
def pool() -> Iterator[ray_pool.Pool]:
    """A fresh pool on tmpfs, with the environment of one who uses it."""
    with ray_pool.pool_in() as made:
        yield made


@pytest.fixture(scope="module")
def shared_pool() -> Iterator[ray_pool.Pool]:
    """The same, for all tests of a file."""
    with ray_pool.pool_in() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a program of the test runs."""
    return tmp_path
