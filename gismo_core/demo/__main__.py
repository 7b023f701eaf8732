"""`python -m gismo_core.demo` is `gismo demo`."""

import sys

from gismo_core.demo.cli import main

if __name__ == "__main__":
    sys.exit(main())
