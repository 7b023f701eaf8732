"""The runtime that is put into other people's images: `python -m gismo_core.ray.inject`, and what it takes care of."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import ray_pool
import ray_venv
from gismo_core.errors import InvalidArgument
from gismo_core.ray import inject

SEEN = """
import json, os, site, sys
import importlib.util
spec = importlib.util.find_spec("gismo_core")
print(json.dumps({
    "gismo_core": spec.origin if spec else None,
    "hooked": any(type(one).__name__ == "AfterImport" for one in sys.meta_path),
    "PYTHONUSERBASE": os.environ.get("PYTHONUSERBASE"),
    "PYTHONPATH": os.environ.get("PYTHONPATH", "").split(os.pathsep),
    "user_site": site.getusersitepackages(),
    "path": sys.path,
    "sitecustomize": getattr(sys.modules.get("sitecustomize"), "MARK", None),
    "modules": sorted(set(sys.modules) & {"gismo_core", "ray"}),
}))
"""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A laid-out runtime."""
    folder = tmp_path_factory.mktemp("inject") / "1.0"
    done = subprocess.run([sys.executable, "-m", "gismo_core.ray.inject", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == folder
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with nothing of Gismo, that sees user site-packages."""
    return ray_venv.make(tmp_path_factory.mktemp("plain"), [], system_site=True)


@pytest.fixture
def home(folder: Path) -> dict[str, str | None]:
    """Somebody's environment, with a home of its own."""
    (folder / "home").mkdir()
    return {"HOME": str(folder / "home")}


def seen(ran: ray_pool.Ran) -> dict[str, object]:
    assert ran.code == 0, ran.err
    assert ran.err == ""
    found: dict[str, object] = json.loads(ran.out)
    return found


def own(runtime: Path) -> str:
    return str(runtime / "python" / "gismo_core" / "__init__.py")


# ---- what is laid out -----------------------------------------------------------------------------------------------


def test_it_holds_the_package_alone(runtime: Path) -> None:
    assert sorted(path.name for path in runtime.iterdir()) == ["boot", "lib", "python"]
    assert [path.name for path in (runtime / "python").iterdir()] == ["gismo_core"]
    assert (runtime / "python" / "gismo_core" / "_lib" / "libgismo.so").is_file()
    assert not list(runtime.rglob("*.c"))
    pythons = sorted(path.parts[-3] for path in (runtime / "lib").glob("*/site-packages/gismo.pth"))
    assert pythons == sorted(f"python{version}" for version in inject.PYTHONS)
    assert runtime.stat().st_mode & 0o555 == 0o555


def test_it_is_never_laid_over_another(runtime: Path) -> None:
    with pytest.raises(InvalidArgument, match="name a new folder"):
        inject.lay_out(runtime)
    assert [path.name for path in runtime.parent.iterdir()] == [runtime.name]


# ---- PYTHONUSERBASE -------------------------------------------------------------------------------------------------


def test_user_base(runtime: Path, plain: Path, pool: ray_pool.Pool, folder: Path, home: dict[str, str | None]) -> None:
    environment = pool.environment(PYTHONUSERBASE=str(runtime), PYTHONPATH=str(folder / "app"), **home)
    found = seen(ray_pool.run(SEEN, environment, folder, python=plain))
    assert found["gismo_core"] == own(runtime)
    assert found["hooked"]
    assert found["modules"] == []  # nothing is imported that nobody asked for
    assert found["PYTHONUSERBASE"] is None
    assert found["PYTHONPATH"] == [str(runtime / "boot"), str(folder / "app")]  # for children, and the app's own stays
    assert str(found["user_site"]).startswith(str(folder / "home" / ".local"))
    path = found["path"]
    assert isinstance(path, list)
    assert not [entry for entry in path if entry.startswith(str(runtime))]


def test_user_base_without_the_variable_leaves_no_trace(
    runtime: Path, plain: Path, pool: ray_pool.Pool, folder: Path, home: dict[str, str | None]
) -> None:
    environment = pool.environment(PYTHONUSERBASE=str(runtime), GISMO_STORE=None, **home)
    found = seen(ray_pool.run(SEEN, environment, folder, python=plain))
    assert found["gismo_core"] is None
    assert not found["hooked"]
    assert found["PYTHONUSERBASE"] is None
    assert found["PYTHONPATH"] == [""]


def test_the_users_own_packages_are_there_and_can_be_added_to(
    runtime: Path, pool: ray_pool.Pool, folder: Path, home: dict[str, str | None]
) -> None:
    environment = pool.environment(
        PYTHONUSERBASE=str(runtime), PIP_BREAK_SYSTEM_PACKAGES="1", PIP_NO_INDEX="1", **home
    )  # fmt: skip
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    wheel = tiny_wheel(folder)
    install = [str(python), "-m", "pip", "install", "--user", "--no-deps", "--quiet", str(wheel)]
    ran = ray_pool.run_command(install, environment, folder)
    assert ran.code == 0, ran.err
    assert list((folder / "home" / ".local").rglob("tiny_thing.py"))
    assert not list(runtime.rglob("tiny_thing.py"))
    program = SEEN.replace("import json,", "import tiny_thing, json,")
    assert seen(ray_pool.run(program, environment, folder, python=python))["gismo_core"] == own(runtime)


def tiny_wheel(folder: Path) -> Path:
    path = folder / "tiny_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_thing.py", "HERE = True\n")
        info = "tiny_thing-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


# ---- PYTHONPATH -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False], ids=["before ours", "after ours"])
def test_another_sitecustomize_is_run_too(
    runtime: Path, plain: Path, pool: ray_pool.Pool, folder: Path, before: bool
) -> None:
    other = folder / "other"
    other.mkdir()
    # One that chains as well, by a second look without its own folder, as instrumenters do.
    (other / "sitecustomize.py").write_text(
        "import os, sys\n"
        "MARK = 'other'\n"
        "here = os.path.dirname(os.path.abspath(__file__))\n"
        "path, sys.path = sys.path, [one for one in sys.path if one != here]\n"
        "me = sys.modules.pop('sitecustomize')\n"
        "try:\n    import sitecustomize\n"
        "except ImportError:\n    pass\n"
        "finally:\n    sys.path = path\n    sys.modules['sitecustomize'] = me\n"
    )
    entries = [str(runtime / "boot"), str(other)]
    environment = pool.environment(PYTHONPATH=":".join(reversed(entries) if before else entries))
    found = seen(ray_pool.run(SEEN, environment, folder, python=plain))
    assert found["hooked"]
    assert found["gismo_core"] == own(runtime)
    assert found["sitecustomize"] == "other"


def test_children_of_another_environment_inherit_it(
    runtime: Path, plain: Path, pool: ray_pool.Pool, folder: Path, home: dict[str, str | None]
) -> None:
    child = ray_venv.make(folder / "child", [])  # no user site: PYTHONUSERBASE alone would not reach it
    script = folder / "seen.py"
    script.write_text(SEEN)
    program = f"import subprocess; subprocess.run([{str(child)!r}, {str(script)!r}], check=True)\n"
    environment = pool.environment(PYTHONUSERBASE=str(runtime), **home)
    found = seen(ray_pool.run(program, environment, folder, python=plain))
    assert found["hooked"]
    assert found["gismo_core"] == own(runtime)


def test_an_images_own_package_wins(
    runtime: Path, pool: ray_pool.Pool, folder: Path, home: dict[str, str | None]
) -> None:
    image = ray_venv.make(folder / "image", [], system_site=True)
    ray_venv.add_this_tree(folder / "image")
    for more in ({"PYTHONUSERBASE": str(runtime)}, {"PYTHONPATH": str(runtime / "boot")}):
        found = seen(ray_pool.run(SEEN, pool.environment(**more, **home), folder, python=image))
        assert found["gismo_core"] == str(ray_venv.ROOT / "gismo_core" / "__init__.py")
        assert found["hooked"]
        assert found["PYTHONUSERBASE"] is None


# ---- with Ray -------------------------------------------------------------------------------------------------------


def test_ray_keeps_objects_in_the_store(
    runtime: Path, pool: ray_pool.Pool, folder: Path, home: dict[str, str | None]
) -> None:
    image = ray_venv.make(folder / "image", [ray_venv.site_packages_of_tests()], system_site=True)
    program = (
        ray_pool.PRELUDE
        + ray_pool.ROUND
        + """
import gismo_core
start()
print(json.dumps([settled(), gismo_core.__file__]))
"""
    )
    environment = pool.environment(PYTHONUSERBASE=str(runtime), **home)
    ran = ray_pool.run(program, environment, folder, python=image)
    assert ran.code == 0, ran.err
    found, where = json.loads(ran.out.splitlines()[-1])
    assert where == own(runtime)
    assert found == ray_pool.everywhere(in_store=True)
