"""The command `gismo`. Needs click; tables and progress bars are nicer where rich is there.

Exit codes are in gismo_core.cli.exits and in `gismo --help`.
"""

from gismo_core.cli.group import main

__all__ = ["main"]
