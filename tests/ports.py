"""Ports for servers that tests start.

They lie below those that the kernel gives to whoever asks for any (ip_local_port_range; every outgoing connection does)
and above those of Ray's workers: what is free here stays free until the server listens. It matters: a `ray start` whose
metrics port is taken waits four minutes for its raylet, and says nothing.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import socket
from collections.abc import Iterator

_PORTS = range(20_000, 32_000)
_PORTS_OF_A_RUNNER = 1_000  # pytest-xdist's runners are beside one another


def free(count: int) -> list[int]:
    """Ports that nobody listens on now, that no other runner of these tests takes, and that were not given lately: whoever
    asked before may not listen yet."""
    return list(itertools.islice(filter(_is_free, _candidates()), count))


@functools.cache
def _candidates() -> Iterator[int]:
    """This runner's, in an order of its own, round and round."""
    runner = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = runner * _PORTS_OF_A_RUNNER % len(_PORTS)
    candidates = list(_PORTS[first : first + _PORTS_OF_A_RUNNER])
    random.shuffle(candidates)
    return itertools.cycle(candidates)


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("", port))
        except OSError:
            return False
        return True
