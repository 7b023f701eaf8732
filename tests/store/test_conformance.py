"""The conformance suite on the media that any machine has."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

import gismo_core
from gismo_core.testing import StoreConformance


class TestTmpfs(StoreConformance):
    """A file on /dev/shm: the embedded default."""

    def make_store(self, folder: Path) -> str:
        descriptor, path = tempfile.mkstemp(prefix="gismo-test-", dir="/dev/shm")
        os.close(descriptor)
        gismo_core.format(path, size=self.SIZE_BYTES, force=True)
        return path

    def remove_store(self, path: str) -> None:
        os.unlink(path)


class TestDiskFile(StoreConformance):
    """A file on whatever file system temporary files are on."""

    def make_store(self, folder: Path) -> str:
        path = f"file:{folder}/pool"
        gismo_core.format(path, size=self.SIZE_BYTES)
        return path


class TestSoftwareCoherence(TestTmpfs):
    """The same with every flush and invalidate of incoherent hosts in place."""

    def make_store(self, folder: Path) -> str:
        path = super().make_store(folder)
        gismo_core.format(path, force=True, coherence="software")
        return path


class TestDax(StoreConformance):
    """A device-DAX named by the environment variable PYTEST_DAX, whose content is lost."""

    def make_store(self, folder: Path) -> str:
        device = os.environ.get("PYTEST_DAX")
        if not device:
            pytest.skip("no DAX device to overwrite was named (PYTEST_DAX=/dev/daxX.Y)")
        gismo_core.format(f"dax:{device}", force=True)
        return f"dax:{device}"
