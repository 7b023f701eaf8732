# mypy: ignore-errors
"""Run in a container with a share of tenant A: tries everything to get at the store of tenant B (its UUID is the argument).

Says one JSON object: attempt → what came of it ("reached" is what must not be there).
"""

import ctypes
import json
import os
import sys
from pathlib import Path

import gismo_core

OTHER = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
said = {}


def attempt(name, do):
    try:
        said[name] = f"reached: {do()}"
    except (OSError, gismo_core.GismoError) as error:
        said[name] = f"{type(error).__name__}: {error}"


def called(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def through(path):
    return Path(path).read_bytes()[:8]


own = os.environ["GISMO_STORE"].rpartition("/")[2]
said["own"] = own
said["stores seen"] = sorted(path.name for path in Path("/dev/gismo").iterdir())
said["state seen"] = sorted(path.name for path in Path("/run/gismo").iterdir())
said["mounts"] = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if OTHER in line]
attempt("open by name", lambda: gismo_core.open(f"file:/dev/gismo/{OTHER}"))
attempt("open beside the own", lambda: through(f"/dev/gismo/{own}/../{OTHER}"))
attempt("the directory of the pool", lambda: os.listdir("/var/lib/gismo/emulated"))
attempt("by the root of process 1", lambda: through(f"/proc/1/root/var/lib/gismo/emulated/{OTHER}"))
attempt("mount a tmpfs", lambda: called(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)))
attempt("memory of the machine", lambda: through("/dev/mem"))
# With the right file under the wrong name the own state directory's marker speaks against it.
with open("/tmp/forged", "wb") as forged:
    forged.truncate(32 << 20)
attempt("another store under the own marker", lambda: gismo_core.open("file:/tmp/forged"))
print(json.dumps(said))
