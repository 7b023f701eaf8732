"""Loads the integration when Ray is imported. Called at the start of each Python process where GISMO_STORE is set.

Imports next to nothing: most processes that see the variable never import Ray.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

# After this module has been executed, call install() of that one.
_AFTER = {"ray": "patches", "ray.data.context": "data", "torch": "tensors"}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of _AFTER as everybody else would, and acts once they have been executed."""

    def __init__(self) -> None:
        self._finding: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _AFTER or name in self._finding:
            return None
        self._finding.add(name)  # the search below comes by here again
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._finding.discard(name)
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
        _install(module.__name__)


def _install(name: str) -> None:
    importlib.import_module(f"gismo_core.ray.{_AFTER[name]}").install()


def register() -> None:
    """Watch for the import of Ray; install at once where it was imported already. Safe to repeat."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    for name in _AFTER:
        if name in sys.modules:
            _install(name)
