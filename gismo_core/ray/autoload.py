"""Loads the integration when Ray is imported. Called at the start of each Python process where GISMO_STORE is set.

Imports next to nothing: most processes that see the variable never import Ray.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType


class _AfterRay(importlib.abc.MetaPathFinder):
    """Finds `ray` as everybody else would, and installs the integration once it has been executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "ray":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            spec.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        from gismo_core.ray import patches

        patches.install()


def register() -> None:
    """Watch for the import of Ray; install at once where it was imported already. Safe to repeat."""
    if "ray" in sys.modules:
        from gismo_core.ray import patches

        patches.install()
    elif not any(isinstance(finder, _AfterRay) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterRay())
