"""The conformance suite on the media that any machine has."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

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


DEVICE = os.environ.get("PYTEST_DAX")

if DEVICE:

    class TestDax(StoreConformance):
        """The device-DAX that PYTEST_DAX=/dev/daxX.Y names; its content is lost."""

        def make_store(self, folder: Path) -> str:
            gismo_core.format(f"dax:{DEVICE}", force=True)
            return f"dax:{DEVICE}"
