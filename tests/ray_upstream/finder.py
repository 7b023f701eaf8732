"""Lets an installed Ray find its own tests: `ray.tests`, `ray.data.tests`, which its wheel leaves out.

Loaded at each start of Python by a .pth file of the environment in which they run (and so in Ray's workers); the
variable names the folder that stands for the package `ray`. Without dependencies.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType

VARIABLE = "TESTS_OF_RAY"


class _Finder(importlib.abc.MetaPathFinder):
    """The last one, asked for what nobody else has: an installed module is never hidden."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        first, *rest = fullname.split(".")
        if first != "ray" or "tests" not in rest:
            return None
        where = os.path.join(self._package, *rest)
        if os.path.isfile(f"{where}.py"):
            return importlib.util.spec_from_file_location(fullname, f"{where}.py")
        if not os.path.isdir(where):
            return None
        spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = [where]
        return spec


def register() -> None:
    """Called from the .pth file."""
    sys.meta_path.append(_Finder(os.environ[VARIABLE]))
