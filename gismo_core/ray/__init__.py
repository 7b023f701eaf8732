"""Ray on Gismo: stock Ray keeps its large objects in the store. docs/ray.md says how.

With GISMO_STORE in the environment everything loads by itself. In a notebook, call enable() before ray.init().
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gismo_core.ray.enabling import SwitchedOff, TooLate, enable
    from gismo_core.ray.placed import empty

__all__ = ["SwitchedOff", "TooLate", "empty", "enable"]


def __getattr__(name: str) -> Any:
    # Every worker imports this package, and hardly any of them these.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gismo_core.ray import enabling, placed

    return getattr(placed if name == "empty" else enabling, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
