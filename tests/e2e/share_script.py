# mypy: ignore-errors
"""Run in a container with a share (python3 -c SCRIPT put|get|seen NAME): leaves an object, and looks whether it is there."""

import json
import os
import sys

import gismo_core

WHAT, NAME = sys.argv[1:]
PATTERN = b"gismo-e2e-secret" * (1 << 16)

with gismo_core.open(os.environ["GISMO_STORE"]) as store:
    said = {"store": str(store.store_uuid)}
    if WHAT == "put":
        store.put(PATTERN, name=NAME)
    else:
        try:
            with store.get(store.lookup(NAME)) as view:
                said["kept"] = bytes(view) == PATTERN
        except gismo_core.NameNotFound:
            said["kept"] = None
print(json.dumps(said))
