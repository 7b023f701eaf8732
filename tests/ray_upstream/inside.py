"""The first process of a namespace in which Ray's tests run: prepares it, starts pytest, buries whom it leaves behind.

python inside.py SECONDS FOLDER COMMAND…: the command gets SIGINT after that time, so that pytest writes what it has,
and SIGKILL 20 s later; the exit status is CUT_OFF then. FOLDER takes the place of /tmp/ray.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_LAST_S = 20
CUT_OFF = 124


def main(seconds: float, folder: str, command: list[str]) -> int:
    """The command's exit status; 128 + signal where one killed it."""
    os.makedirs("/tmp/ray", exist_ok=True)
    subprocess.run(["mount", "--bind", folder, "/tmp/ray"], check=True)
    with socket.socket() as one:  # the loopback device of a new network namespace is down
        fcntl.ioctl(one, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))
    # Ray's processes outlive their parents, and become children of this one.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    end, asked = time.monotonic() + seconds, False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 1
        if pid == child.pid:
            code = os.waitstatus_to_exitcode(status)
            return CUT_OFF if asked else code if code >= 0 else 128 - code
        if pid:
            continue
        if time.monotonic() > end:
            child.send_signal(signal.SIGKILL if asked else signal.SIGINT)
            end, asked = time.monotonic() + _LAST_S, True
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2], sys.argv[3:]))
