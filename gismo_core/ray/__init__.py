"""Ray on Gismo: stock Ray keeps its large objects in the store. docs/ray.md says how.

With GISMO_STORE in the environment everything loads by itself. In a notebook, call enable() before ray.init().
"""

from gismo_core.ray.enabling import SwitchedOff, TooLate, enable
from gismo_core.ray.placed import empty

__all__ = ["SwitchedOff", "TooLate", "empty", "enable"]
