"""What runs at the start of a Python process: watches for the import of Ray, and installs the integration after it.

Installed a second time as the module `gismo_boot` beside the package, where gismo.pth calls it, and laid into injected
runtimes as `gismo_injected` (gismo_core.ray.inject). Most processes that come here never import Ray, so it imports
nothing that Python has not imported already, gismo_core itself least of all (a hundred modules); what is rare is
imported where it is used.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing's own would bring twenty modules
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


# After this module has been executed, install() of that one of gismo_core.ray is called.
_AFTER = {
    "ray": "patches",
    "ray.data.context": "data",
    "ray.util.state.state_manager": "state_api",
    "torch": "tensors",
}
_broken = False


def register() -> None:
    """Watch for the import of Ray; install at once where it was imported already. Safe to repeat."""
    if not any(type(finder).__name__ == AfterImport.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, AfterImport())
    for name in _AFTER:
        if name in sys.modules:
            _install(name)


def wanted() -> bool:
    """Does the environment ask for the integration?"""
    return bool(os.environ.get("GISMO_STORE")) and os.environ.get("GISMO_DISABLE", "") in ("", "0")


def _install(name: str) -> None:
    global _broken
    if _broken:
        return
    from importlib import import_module

    try:
        import_module(f"gismo_core.ray.{_AFTER[name]}").install()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with this package, `import ray` goes on
        import logging

        _broken = True  # once is enough
        logging.getLogger("gismo.ray").warning(
            "Gismo: the integration with %s is off, because gismo_core does not load here: %s: %s (reinstall gismo-cxl, "
            "or unset GISMO_STORE)",
            name,
            type(error).__name__,
            error,
        )


class AfterImport:
    """Finds the modules of _AFTER as everybody else would, and acts each time one has been executed.

    Finding is not importing: many a library looks for Ray's spec to know whether it is there, and leaves it at that.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _AFTER:
            return None
        for finder in list(sys.meta_path):
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:  # a folder called "ray" without __init__.py has none, and is not Ray
                    loader: Any = _Loader(spec.loader)
                    spec.loader = loader
                return spec
        return None


class _Loader:
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _install(module.__name__)


# ---- injected runtimes: this file lies in DIR/boot, see gismo_core.ray.inject ----------------------------


class Fallback:
    """Finds gismo_core in the injected runtime where nobody else has one.

    As if the folder were the last of sys.path, which it cannot be: site appends to that after the .pth was read.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "gismo_core":
            return None
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, [self.folder])


def from_user_site(site_dir: str) -> None:
    """Called by the .pth of an injected runtime that PYTHONUSERBASE names; site_dir is the folder of that .pth.

    Gives the user's own site folder back, which PYTHONUSERBASE took the place of, also for `pip install --user`.
    """
    import site

    boot = _here()
    root = os.path.dirname(boot)
    if _same(os.environ.get("PYTHONUSERBASE", ""), root):
        del os.environ["PYTHONUSERBASE"]
        sys.path[:] = [entry for entry in sys.path if entry not in (boot, site_dir)]
        site.USER_BASE = site.USER_SITE = None
        own = site.getusersitepackages()
        if os.path.isdir(own):
            site.addsitedir(own)
    _start(boot)


def from_sitecustomize() -> None:
    """Called by DIR/boot/sitecustomize.py. Runs the sitecustomize that it stands before, if there is one."""
    boot = _here()
    if not getattr(sys, "_gismo_chained", False):
        # Once: the next one may chain too, and come back here.
        sys._gismo_chained = True  # type: ignore[attr-defined]
        _start(boot)
        _run_next_sitecustomize(boot)


def _start(boot: str) -> None:
    if not wanted():
        return
    # For children, among them environments without user site. First, because only one sitecustomize is run: this one,
    # which runs the next. There is nothing else in the folder that could be in the way of other modules.
    entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if boot not in entries:
        os.environ["PYTHONPATH"] = os.pathsep.join([boot, *entries])
    if not any(type(finder).__name__ == Fallback.__name__ for finder in sys.meta_path):
        sys.meta_path.append(Fallback(os.path.join(os.path.dirname(boot), "python")))
    register()


def _run_next_sitecustomize(boot: str) -> None:
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    name = "sitecustomize"
    spec = PathFinder.find_spec(name, [entry for entry in sys.path if not _same(entry, boot)])
    if spec is None or spec.loader is None:
        return
    # In our place also by name: others may import it for what it defines. What it raises is for site to report.
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


def _here() -> str:
    return os.path.dirname(os.path.abspath(__file__))


def _same(one: str, other: str) -> bool:
    return bool(one) and os.path.realpath(one) == os.path.realpath(other)
