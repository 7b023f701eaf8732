# mypy: ignore-errors
"""Run in a container with a share: puts an object and reads it again and again; exit status 1 at the first wrong byte.

Says one JSON object when it holds its object: the store, the host id, the container's own time of start.
"""

import hashlib
import json
import os
import signal
import sys
import time

import gismo_core

BYTES = 1 << 20


def end(*_):
    raise SystemExit(0)


signal.signal(signal.SIGTERM, end)
own = hashlib.sha256(os.environ["HOSTNAME"].encode()).digest() * (BYTES // 32)
with gismo_core.open(os.environ["GISMO_STORE"]) as store:
    handle = store.put(own)
    try:
        print(json.dumps({"store": str(store.store_uuid), "host": store.host_id, "began": time.time()}), flush=True)
        while True:
            with store.get(handle) as view:
                if bytes(view) != own:
                    sys.exit("WRONG: the object has other bytes")
            time.sleep(0.1)
    finally:
        store.delete(handle)
