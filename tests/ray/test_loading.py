"""The integration loads by GISMO_STORE alone, costs nothing without it, and never gets in Ray's way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import ray_head
import ray_pool
import ray_venv

START = ray_pool.PRELUDE + ray_pool.ROUND


@pytest.fixture(scope="module")
def bare_head(shared_pool: ray_pool.Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ray_head.Head]:
    """A cluster that nobody told of Gismo."""
    environment = shared_pool.environment(GISMO_STORE=None)
    with ray_head.running(environment, tmp_path_factory.mktemp("head")) as head:
        yield head


# ---- without Ray ----------------------------------------------------------------------------------------------------


def modules_of(python: Path, environment: dict[str, str], folder: Path) -> set[str]:
    ran = ray_pool.run_command(
        [str(python), "-c", "import sys; print(*sys.modules, sep='\\n')"], environment, folder, timeout_s=60
    )
    assert ran.code == 0, ran.err
    assert ran.err == ""
    return set(ran.out.split())


def test_a_start_without_the_variable_imports_nothing_more(pool: ray_pool.Pool, folder: Path) -> None:
    bare = ray_venv.make(folder / "bare", [])
    # Python 3.13 and later import a codec to read any .pth, whatever is in it: most environments have one.
    (folder / "bare" / ray_venv.SITE_PACKAGES / "another.pth").write_text("\n")
    installed = ray_venv.make(folder / "installed", [])
    ray_venv.add_this_tree(folder / "installed")
    without = modules_of(bare, pool.environment(GISMO_STORE=None), folder)
    assert modules_of(installed, pool.environment(GISMO_STORE=None), folder) == without
    assert modules_of(installed, pool.environment(GISMO_DISABLE="1"), folder) == without
    # With it, these: nobody pays for the store who does not import Ray. (And the comparison can fail.)
    assert modules_of(installed, pool.environment(), folder) - without == {"__future__", "gismo_boot"}


@pytest.mark.parametrize("under_an_agent", [True, False])
def test_under_an_agent_a_process_with_ray_shows_that_it_has_gismo(
    pool: ray_pool.Pool, folder: Path, under_an_agent: bool
) -> None:
    """Also one that opens no store, such as Ray's dashboard: the agent knows it by what the process maps."""
    program = "import ray; print('libgismo.so' in open('/proc/self/maps').read())"
    marker = str(folder / "node.json") if under_an_agent else None
    ran = ray_pool.run(program, pool.environment(GISMO_NODE_MARKER=marker), folder)
    assert ran.out.strip() == str(under_an_agent), ran.err


def test_whoever_only_looks_for_rays_spec_does_not_disarm_it(pool: ray_pool.Pool, folder: Path) -> None:
    program = """
import importlib.util, json
spec = importlib.util.find_spec("ray")
origin = spec.loader.get_filename("ray")
import ray
from gismo_core.ray import patches
print(json.dumps([patches.internals() is not None, origin == ray.__file__, type(ray.__spec__.loader).__name__]))
"""
    ran = ray_pool.run(program, pool.environment(), folder)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) == [True, True, "SourceFileLoader"]


def test_a_package_that_does_not_load_is_one_warning(pool: ray_pool.Pool, folder: Path) -> None:
    broken = folder / "broken" / "gismo_core"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise OSError('libgismo.so: wrong ELF class')\n")
    python = ray_venv.make(folder / "env", [broken.parent, ray_venv.site_packages_of_tests()])
    ray_venv.add_this_tree(folder / "env")
    (folder / "env" / ray_venv.SITE_PACKAGES / "gismo-tree.pth").unlink()
    program = "import ray, ray.data.context\nprint(ray.__version__)\n"
    ran = ray_pool.run(program, pool.environment(), folder, python=python)
    assert ran.code == 0, ran.err
    assert len(ran.warnings) == 1, ran.err
    assert "wrong ELF class" in ran.warnings[0]
    assert "unset GISMO_STORE" in ran.warnings[0]


# ---- what is wrong: one warning, and Ray works ----------------------------------------------------------------------

CONNECT = START + 'ray.init(address=os.environ["ADDRESS"])\nprint(json.dumps(everywhere()))\n'

UNKNOWN_RAY = """
import sys
import gismo_boot
sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, gismo_boot.AfterImport)]
import ray._private.worker
original = ray._private.worker.Worker.put_object

def put_object(self, what, *arguments, **options):  # Ray calls the value something else now
    return original(self, what, *arguments, **options)

ray._private.worker.Worker.put_object = put_object
gismo_boot.register()
"""


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("file:/dev/shm/no-such-folder/pool", "No such file"),
        ("nonsense:pool", "nonsense:pool"),
        ("file:/dev/null", "GISMO_STORE=file:/dev/null cannot be opened"),
    ],
    ids=["missing pool", "wrong variable", "no pool"],
)
def test_a_store_that_cannot_be_opened(
    shared_pool: ray_pool.Pool, bare_head: ray_head.Head, folder: Path, store: str, said: str
) -> None:
    ran = ray_pool.run(CONNECT, shared_pool.environment(GISMO_STORE=store, ADDRESS=bare_head.address), folder)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) == ray_pool.everywhere(in_store=False)
    assert len(ran.warnings) == 1, ran.err
    assert said in ran.warnings[0]
    assert "gismo ray check" in ran.warnings[0]


def test_a_worker_that_waits_for_its_first_task(pool: ray_pool.Pool, folder: Path) -> None:
    """It knows its job and has no runtime environment yet: whoever submits anything then ends the process."""
    program = (
        START
        + """
began, ended = sys.argv[1] + "/began", sys.argv[1] + "/ended"
def linger():
    with open(began, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(2)
    with open(ended, "a") as file:
        file.write(f"{os.getpid()}\\n")
start(runtime_env={"worker_process_setup_hook": linger})
print(json.dumps(settled()))
time.sleep(4)  # whoever began to wait
"""
    )
    ran = ray_pool.run(program, pool.environment(), folder, arguments=(str(folder),), timeout_s=240)
    assert ran.code == 0, ran.err
    assert all(stored for stored, _ in json.loads(ran.out).values()), ran.out
    began, ended = ((folder / name).read_text().split() for name in ("began", "ended"))
    assert set(began) == set(ended), ran.err
    assert len(ended) >= 2


def test_an_unknown_ray(shared_pool: ray_pool.Pool, bare_head: ray_head.Head, folder: Path) -> None:
    ran = ray_pool.run(UNKNOWN_RAY + CONNECT, shared_pool.environment(ADDRESS=bare_head.address), folder)
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found == ray_pool.everywhere(in_store=False)
    assert len(ran.warnings) == 1, ran.err
    assert "put_object takes" in ran.warnings[0]
    assert "install a newer gismo-cxl" in ran.warnings[0]


def test_ray_without_grpc(shared_pool: ray_pool.Pool, bare_head: ray_head.Head, folder: Path) -> None:
    fake = folder / "fake" / "grpc"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise ImportError(\"No module named 'grpc'\", name='grpc')\n")
    environment = shared_pool.environment(ADDRESS=bare_head.address, PYTHONPATH=str(fake.parent))
    ran = ray_pool.run(CONNECT, environment, folder)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) == ray_pool.everywhere(in_store=False)
    assert len(ran.warnings) == 1, ran.err
    assert "pip install 'ray[default]'" in ran.warnings[0]


def test_an_unknown_ray_of_which_only_its_tables_differ(shared_pool: ray_pool.Pool, folder: Path) -> None:
    """A worker looks at them no sooner than it finds no keeper; what it wrote until then must stay."""
    program = (
        START
        + """
def hide():
    import threading
    from ray.core.generated import node_manager_pb2
    node_manager_pb2.GetNodeStatsReply = node_manager_pb2.GetNodeStatsRequest
    original, ray.look = ray.get_actor, threading.Event()
    ray.get_actor = lambda *arguments, **options: ray.look.wait(60) and original(*arguments, **options)

@ray.remote(num_cpus=0)
class Unknown:
    def put(self, value):
        ref = ray.put(np.full(1 << 20, value, np.uint8))
        return [ref], in_store(ray.get(ref))

    def gave_up(self, timeout_s=60):
        from gismo_core.ray import session
        ray.look.set()
        end = time.monotonic() + timeout_s
        while session.current() is not None and time.monotonic() < end:
            time.sleep(0.01)
        return session.current() is None and "ray" in session.Warnings._said

variables = {"GISMO_STORE": "file:" + os.environ["POOL"]}
start(runtime_env={"env_vars": variables, "worker_process_setup_hook": hide})
actor = Unknown.remote()
first, first_stored = ray.get(actor.put.remote(3))
gave_up = ray.get(actor.gave_up.remote())
second, second_stored = ray.get(actor.put.remote(4))
values = [ray.get(here.remote(ref))[1] for ref in (*first, *second)]
print(json.dumps([first_stored, gave_up, second_stored, values, ray.util.list_named_actors(all_namespaces=True)]))
"""
    )
    environment = shared_pool.environment(GISMO_STORE=None, POOL=shared_pool.path)
    ran = ray_pool.run(program, environment, folder)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) == [True, True, False, [3, 4], []], ran.err


def test_switched_off(shared_pool: ray_pool.Pool, bare_head: ray_head.Head, folder: Path) -> None:
    ran = ray_pool.run(CONNECT, shared_pool.environment(GISMO_DISABLE="1", ADDRESS=bare_head.address), folder)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) == ray_pool.everywhere(in_store=False)
    assert ran.warnings == []


# ---- enable(): for notebooks ----------------------------------------------------------------------------------------

ENABLE = START + "import gismo_core.ray\nstore = 'file:' + os.environ['POOL']\n"


def test_enable_before_init(pool: ray_pool.Pool, folder: Path) -> None:
    program = (
        ENABLE + "gismo_core.ray.enable(store)\ngismo_core.ray.enable(store)\nstart()\nprint(json.dumps(settled()))\n"
    )
    program += "gismo_core.ray.enable(store)\n"  # a cell that is run again
    ran = ray_pool.run(program, pool.environment(GISMO_STORE=None, POOL=pool.path), folder)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) == ray_pool.everywhere(in_store=True)
    assert ran.warnings == []


def test_enable_on_a_cluster_that_runs_and_with_a_runtime_env(
    shared_pool: ray_pool.Pool, bare_head: ray_head.Head, folder: Path
) -> None:
    program = (
        ENABLE
        + """
gismo_core.ray.enable(store)
ray.init(address=os.environ["ADDRESS"], runtime_env={"env_vars": {"OWN": "kept"}})

@ray.remote
def seen():
    return os.environ.get("OWN"), os.environ.get("GISMO_STORE")

print(json.dumps([settled(), ray.get(seen.remote())]))
"""
    )
    environment = shared_pool.environment(GISMO_STORE=None, POOL=shared_pool.path, ADDRESS=bare_head.address)
    ran = ray_pool.run(program, environment, folder)
    assert ran.code == 0, ran.err
    found, seen = json.loads(ran.out)
    assert found == ray_pool.everywhere(in_store=True)
    assert seen == ["kept", f"file:{shared_pool.path}"]


def test_enable_says_what_is_wrong(shared_pool: ray_pool.Pool, bare_head: ray_head.Head, folder: Path) -> None:
    program = (
        ENABLE
        + """
from gismo_core.errors import GismoError
def say(store):
    try:
        gismo_core.ray.enable(store)
    except GismoError as error:
        return type(error).__name__, str(error)
found = [say("file:/dev/shm/no-such-folder/pool")]
os.environ["GISMO_DISABLE"] = "1"
found.append(say(store))
del os.environ["GISMO_DISABLE"]
ray.init(address=os.environ["ADDRESS"])
found.append(say(store))
ray.shutdown()
print(json.dumps([found, os.environ.get("GISMO_STORE"), say(store)]))
"""
    )
    environment = shared_pool.environment(GISMO_STORE=None, POOL=shared_pool.path, ADDRESS=bare_head.address)
    ran = ray_pool.run(program, environment, folder)
    assert ran.code == 0, ran.err
    found, variable, after = json.loads(ran.out)
    (missing, _), (off, _), (late, advice) = found
    assert (missing, off, late) == ("NotAStore", "SwitchedOff", "TooLate")
    assert "ray.shutdown()" in advice
    assert variable is None
    assert after is None
