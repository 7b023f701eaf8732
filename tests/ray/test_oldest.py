"""The oldest Ray that is claimed: what is kept, read and freed there is what it is on the newest."""

from __future__ import annotations

import json
from pathlib import Path

import ray_old
import ray_pool
from gismo_core.ray import compat

PROGRAM = (
    ray_pool.PRELUDE
    + ray_pool.ROUND
    + """
start()
found = settled()

import time
from gismo_core.ray import record, session

def records():
    return len(session.open_store().sealed(tag=record.TAG, mask=record.TAG_MASK))

kept = [ray.put(np.full(1 << 20, i, np.uint8)) for i in range(8)]
kept += [make.remote(1 << 20) for _ in range(8)]
ray.wait(kept, num_returns=len(kept))
held = records()
right = [int(ray.get(ref)[0]) for ref in kept] == [*range(8), *[7] * 8]
del kept
end = time.monotonic() + 90
while records() and time.monotonic() < end:
    time.sleep(0.1)
print(json.dumps([ray.__version__, found, held, right, records()]))
"""
)


def test_oldest() -> None:
    assert compat.version_of(ray_old.OLDEST) == compat.OLDEST


def test_put_get_return_and_free(pool: ray_pool.Pool, folder: Path) -> None:
    ran = ray_pool.run(PROGRAM, pool.environment(), folder, python=ray_old.python_of(ray_old.OLDEST), timeout_s=240)
    assert ran.code == 0, ran.err
    version, found, held, right, left = json.loads(ran.out.splitlines()[-1])
    assert version == ray_old.OLDEST
    assert found == ray_pool.everywhere(in_store=True)
    assert held >= 16
    assert right
    assert left == 0
