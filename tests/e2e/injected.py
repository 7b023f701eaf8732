# mypy: ignore-errors
"""Run inside a container with a share (python3 -c): a Ray of one node, and where its objects lie. Says it as one line of JSON.

Its arguments: JSON with `runtime_env` of the job, `modules` (imported in driver and worker; their MARK is said), and `stay`
(seconds to live on).
"""

import importlib
import json
import os
import sys
import time

import numpy
import ray

WANTED = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
MIB = 1 << 20


def mapped_from(array):
    """The file that the array's first byte is mapped from."""
    at = array.__array_interface__["data"][0]
    with open("/proc/self/maps") as lines:
        for line in lines:
            span, _, _, _, _, *path = line.split()
            begin, end = (int(part, 16) for part in span.split("-"))
            if begin <= at < end:
                return path[0] if path else ""
    raise AssertionError("the array is in no mapping")


def about_me(modules):
    spec = importlib.util.find_spec("gismo_core")
    marks = {}
    for name in modules:
        try:
            marks[name] = importlib.import_module(name).MARK
        except (ImportError, AttributeError) as error:
            marks[name] = str(error)
    return {
        "python": sys.executable,
        "gismo_core": spec.origin if spec else None,
        "pythonpath": os.environ.get("PYTHONPATH"),
        "userbase": os.environ.get("PYTHONUSERBASE"),
        "uid": os.geteuid(),
        "marks": marks,
    }


@ray.remote
def worker(array, modules):
    return mapped_from(array), about_me(modules), numpy.full(MIB, 7, numpy.uint8)


ray.init(
    num_cpus=1,
    include_dashboard=False,
    object_store_memory=100 * MIB,
    runtime_env=WANTED.get("runtime_env") or {},
    log_to_driver=False,
)
modules = WANTED.get("modules", [])
ref = ray.put(numpy.full(MIB, 3, numpy.uint8))
for _ in range(60):
    argument, there, returned = ray.get(list(worker.options(num_returns=3).remote(ref, modules)), timeout=120)
    # The first returns of a new worker may go Ray's own way, while the keeper is only starting.
    if mapped_from(returned).startswith("/dev/gismo/") or not argument.startswith("/dev/gismo/"):
        break
    time.sleep(0.5)
said = {
    "put": mapped_from(ray.get(ref)),
    "argument": argument,
    "returned": mapped_from(returned),
    "driver": about_me([name for name in modules if name != "tiny_thing"]),
    "worker": there,
}
print("SAID " + json.dumps(said), flush=True)
time.sleep(WANTED.get("stay", 0))
