"""A process that uses a store: it has something half made, has made an object, and puts more when it is told to."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

import gismo_core

KEPT = b"kept" * 1000
# OPEN: what opens the store.
_PROGRAM = """
import sys, gismo_core
store = {OPEN}
draft = store.create(100000)
print(store.put(b"kept" * 1000), flush=True)
for line in sys.stdin:
    try:
        store.put(b"more")
        print("done", flush=True)
    except gismo_core.GismoError as error:
        print(type(error).__name__, flush=True)
"""


class StoreUser:
    """It runs when this is made. kept: what it has made."""

    def __init__(self, python: str, opening: str, *arguments: str, env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [python, "-c", _PROGRAM.replace("{OPEN}", opening), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd="/",  # a checkout's own gismo_core is no part of an image
        )
        assert self.process.stdout is not None
        self.kept = gismo_core.Handle.parse(self.process.stdout.readline().strip())

    def put(self) -> str:
        """ "done", or the name of the error."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("put\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        """Safe to repeat."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
