"""`python -m gismo_core` is the command `gismo`, where no script was installed."""

import sys

from gismo_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
