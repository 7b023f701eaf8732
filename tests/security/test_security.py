"""Who may do what: modes, symbolic links, what is overwritten, other users, hostile environment variables."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gismo_core
from gismo_core import GismoError, NotAStore, StoreExists, StorePermissionError

MiB = 1024**2
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")


@pytest.fixture
def shared(shm: Path) -> Iterator[Path]:
    """A folder that another user can reach and write."""
    folder = Path(tempfile.mkdtemp(prefix="gismo-security-", dir="/dev/shm"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def as_user(uid: int, action: Callable[[], str]) -> str:
    """What `action` says in a child process of that user."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            said = action()
        except BaseException as error:  # noqa: BLE001
            said = f"{type(error).__name__}: {error}"
        os.write(write_end, said.encode()[:60000])
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    return said


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode)
        for path in folder.rglob("*")
        if not path.is_symlink()
    }


def in_use(store: str, state: Path) -> str:
    """Open, put, get, delete; what was read."""
    with gismo_core.open(store, state_dir=state) as s:
        handle = s.put(b"some bytes")
        with s.get(handle) as view:
            read = bytes(view)
        s.delete(handle)
    return read.decode()


# ---- modes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nothing_is_open_to_others_by_default(shm: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        gismo_core.format(shm / "pool", size=8 * MiB)
        with gismo_core.open(shm / "pool", state_dir=shm / "state") as store:
            store.put(b"secret")
            seen = modes(shm)
    finally:
        os.umask(old)
    assert seen["pool"] == 0o600
    inner = {name: mode for name, mode in seen.items() if name.startswith("state/")}
    assert len([name for name in inner if "/pins." in name]) == 1
    assert {Path(name).name.split(".")[0] for name in inner} >= {"state", "locks", "pins"}
    for name, mode in inner.items():
        assert mode == (0o700 if (shm / name).is_dir() else 0o600), (name, oct(mode))
    assert seen["state"] & 0o077 == 0


@pytest.mark.parametrize("mode", [0o660, 0o666, 0o640])
def test_mode_widens(shm: Path, mode: int) -> None:
    old = os.umask(0o077)
    try:
        gismo_core.format(shm / "pool", size=8 * MiB, mode=mode)
        with gismo_core.open(shm / "pool", state_dir=shm / "state"):
            seen = modes(shm)
    finally:
        os.umask(old)
    assert seen["pool"] == mode
    for name, found in seen.items():
        if name.startswith("state/") and not (shm / name).is_dir():
            assert found == mode, (name, oct(found))


@pytest.mark.parametrize("mode", [0o4755, 0o1777, 0o10000])
def test_no_bits_beyond_permissions(shm: Path, mode: int) -> None:
    try:
        gismo_core.format(shm / "pool", size=8 * MiB, mode=mode)
    except GismoError:
        assert not (shm / "pool").exists()
        return
    assert (shm / "pool").stat().st_mode & 0o7000 == 0


# ---- symbolic links ----------------------------------------------------------------------------------


def test_no_symbolic_link_is_a_store(shm: Path, store_path: str) -> None:
    before = Path(store_path).read_bytes()[:65536]
    (shm / "link").symlink_to(store_path)
    for attempt in (
        lambda: gismo_core.open(shm / "link", state_dir=shm / "state"),
        lambda: gismo_core.open(shm / "link", read_only=True),
        lambda: gismo_core.probe(shm / "link"),
        lambda: gismo_core.format(shm / "link", size=8 * MiB, force=True),
    ):
        with pytest.raises(StorePermissionError, match="symbolic link"):
            attempt()
    assert Path(store_path).read_bytes()[:65536] == before


def test_format_makes_nothing_through_a_dangling_link(shm: Path) -> None:
    (shm / "link").symlink_to(shm / "elsewhere")
    with pytest.raises(StorePermissionError, match="symbolic link"):
        gismo_core.format(shm / "link", size=8 * MiB)
    assert not (shm / "elsewhere").exists()


@pytest.mark.parametrize("name", ["state", "locks"])
def test_no_symbolic_link_in_the_state_directory(shm: Path, store_path: str, name: str) -> None:
    in_use(store_path, shm / "state")
    victim = shm / "victim"
    victim.write_bytes(b"precious" * 1000)
    inner = next(path for path in (shm / "state").iterdir())
    (inner / name).unlink(missing_ok=True)
    (inner / name).symlink_to(victim)
    with pytest.raises(GismoError):
        in_use(store_path, shm / "state")
    assert victim.read_bytes() == b"precious" * 1000


def test_the_state_directory_of_a_store_is_no_symbolic_link(shm: Path, store_path: str) -> None:
    in_use(store_path, shm / "state")
    inner = next(path for path in (shm / "state").iterdir())
    inner.rename(shm / "moved")
    inner.symlink_to(shm / "moved")
    with pytest.raises(StorePermissionError):
        in_use(store_path, shm / "state")


# ---- what is not a store is never overwritten -----------------------------------------------------------


def refuse_all(path: Path | str, *, force_too: bool = False) -> None:
    with pytest.raises(GismoError):
        gismo_core.format(path, size=8 * MiB)
    if force_too:
        with pytest.raises(GismoError):
            gismo_core.format(path, size=8 * MiB, force=True)
    for read_only in (False, True):
        with pytest.raises(GismoError):
            gismo_core.open(path, read_only=read_only, state_dir="/dev/shm")
    with pytest.raises(GismoError):
        gismo_core.probe(path)


@pytest.mark.parametrize("where", [0, 5000, 65535, 70000, 200_000, 1024**2 - 1])
@pytest.mark.parametrize("size", [None, 8 * MiB])
def test_a_file_with_content_is_kept(shm: Path, where: int, size: int | None) -> None:
    """One byte anywhere, whichever size is asked for."""
    content = bytearray(1024**2)
    content[where] = 1
    (shm / "diary").write_bytes(content)
    with pytest.raises(StoreExists, match="--force"):
        gismo_core.format(shm / "diary", size=size)
    assert (shm / "diary").read_bytes() == content
    with pytest.raises(NotAStore):
        gismo_core.open(shm / "diary", state_dir=shm / "state")
    gismo_core.format(shm / "diary", size=8 * MiB, force=True)
    assert in_use(str(shm / "diary"), shm / "state") == "some bytes"


def test_what_stands_at_the_end_is_kept_when_a_file_would_shrink(shm: Path) -> None:
    content = bytes(9 * MiB) + b"the end"
    (shm / "diary").write_bytes(content)
    with pytest.raises(StoreExists):
        gismo_core.format(shm / "diary", size=8 * MiB)
    assert (shm / "diary").read_bytes() == content


def test_an_empty_file_may_become_a_store(shm: Path) -> None:
    (shm / "empty").write_bytes(b"")
    gismo_core.format(shm / "empty", size=8 * MiB)
    (shm / "zeroes").write_bytes(bytes(8 * MiB))
    gismo_core.format(shm / "zeroes")
    assert gismo_core.probe(shm / "zeroes").size_bytes == 8 * MiB


def test_directories_pipes_and_sockets(shm: Path) -> None:
    (shm / "directory").mkdir()
    refuse_all(shm / "directory", force_too=True)
    assert (shm / "directory").is_dir()
    os.mkfifo(shm / "pipe")
    done = threading.Event()

    def try_pipe() -> None:
        refuse_all(shm / "pipe", force_too=True)
        done.set()

    thread = threading.Thread(target=try_pipe, daemon=True)
    thread.start()
    assert done.wait(20), "a pipe without a writer holds us up"
    assert stat.S_ISFIFO((shm / "pipe").stat().st_mode)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "dax:/dev/null", "dax:/dev/zero", "file:/dev/null"])
def test_character_devices_that_are_no_dax(path: str) -> None:
    refuse_all(path, force_too=True)
    assert stat.S_ISCHR(os.stat(path.split(":")[-1]).st_mode)


def test_a_store_needs_force_and_an_open_one_is_never_formatted(shm: Path, store_path: str) -> None:
    with gismo_core.open(store_path, state_dir=shm / "state") as store:
        handle = store.put(b"kept")
        for force in (False, True):
            with pytest.raises(GismoError):
                gismo_core.format(store_path, force=force)
        with store.get(handle) as view:
            assert bytes(view) == b"kept"
    with pytest.raises(StoreExists, match="--force"):
        gismo_core.format(store_path)
    gismo_core.format(store_path, force=True)


def test_a_failed_format_leaves_no_file(shm: Path) -> None:
    for options in ({"size": 4096}, {"size": 8 * MiB, "max_hosts": 65}, {"size": 8 * MiB, "max_objects": 2**64 - 1}):
        with pytest.raises((GismoError, ValueError)):
            gismo_core.format(shm / "pool", **options)  # type: ignore[arg-type]
        assert not (shm / "pool").exists()


# ---- other users ------------------------------------------------------------------------------------------


@as_root
def test_a_store_of_another_user(shared: Path) -> None:
    gismo_core.format(shared / "pool", size=8 * MiB)
    content = (shared / "pool").read_bytes()
    for said in (
        as_user(NOBODY, lambda: in_use(str(shared / "pool"), shared / "state-b")),
        as_user(NOBODY, lambda: str(gismo_core.probe(shared / "pool"))),
        as_user(NOBODY, lambda: str(gismo_core.format(shared / "pool", force=True))),
    ):
        assert said.startswith("StorePermissionError"), said
        assert "another user" in said
        assert "--mode" in said
    assert (shared / "pool").read_bytes() == content


@as_root
def test_a_store_with_mode_is_for_all(shared: Path) -> None:
    gismo_core.format(shared / "pool", size=8 * MiB, mode=0o666)
    (shared / "state").mkdir()
    (shared / "state").chmod(0o777)  # the umask holds for what gismo makes at the top
    assert in_use(str(shared / "pool"), shared / "state") == "some bytes"
    assert as_user(NOBODY, lambda: in_use(str(shared / "pool"), shared / "state")) == "some bytes"


@as_root
def test_a_user_cannot_lay_a_trap_with_a_state_directory(shared: Path) -> None:
    """Root's store, and a directory of that name that somebody else made first: he could change what is in it."""
    gismo_core.format(shared / "pool", size=8 * MiB)
    in_use(str(shared / "pool"), shared / "model")
    inner = next(path for path in (shared / "model").iterdir()).name

    def lay() -> str:
        (shared / "state").mkdir()
        (shared / "state" / inner).mkdir(mode=0o777)
        return "laid"

    assert as_user(NOBODY, lay) == "laid"
    with pytest.raises(StorePermissionError, match="belongs to user"):
        in_use(str(shared / "pool"), shared / "state")


@as_root
def test_files_in_the_state_directory_of_another_user(shared: Path) -> None:
    """With a state directory open to all, somebody may put a `state` of his own there: refused, or made anew."""
    gismo_core.format(shared / "pool", size=8 * MiB, mode=0o666)
    in_use(str(shared / "pool"), shared / "state")
    inner = next(path for path in (shared / "state").iterdir())
    inner.chmod(0o777)
    (inner / "state").unlink()

    def lay() -> str:
        (inner / "state").write_bytes(os.urandom(100_000))
        return "laid"

    assert as_user(NOBODY, lay) == "laid"
    with pytest.raises(GismoError):
        in_use(str(shared / "pool"), shared / "state")


@as_root
def test_a_file_that_may_only_be_read(shared: Path) -> None:
    gismo_core.format(shared / "pool", size=8 * MiB)
    with gismo_core.open(shared / "pool", state_dir=shared / "state") as store:
        store.put(b"readable", name="x")
    (shared / "pool").chmod(0o444)
    assert as_user(NOBODY, lambda: in_use(str(shared / "pool"), shared / "s")).startswith("StorePermissionError")

    def look() -> str:
        with gismo_core.open(shared / "pool", read_only=True) as store:
            return str([(item.name, item.nbytes) for item in store.objects()])

    said = as_user(NOBODY, look)
    assert "x" in said, said
    assert "8" in said, said


# ---- environment -------------------------------------------------------------------------------------------


HOSTILE = {
    "GISMO_STATE_DIR": ["", "/", "/proc", "/dev/null", "/nowhere/at/all", "x" * 5000, "\n", "%n%s%s", "/dev/shm/../../etc"],
    "GISMO_HOST_ID": ["", "-1", "64", "99999999999999999999", "0x1", "1 ", "one", "%n", "\x01"],
    "GISMO_STORE": ["", "file:", "dax:", "x" * 5000, "%s%n", "/", "file:/dev/null", "dax:/dev/zero"],
    "XDG_RUNTIME_DIR": ["", "x" * 5000, "/proc/self", "/dev/null", "%n"],
}  # fmt: skip

# In one process for all values of a variable: each time another child, for its environment and its state.
TRY = """
import json, os, sys
import gismo_core

path, name, values = sys.argv[1] or None, sys.argv[2], json.loads(sys.argv[3])
for value in values:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.environ[name] = value
        try:
            with gismo_core.open(*([path] if path else [])) as store:
                handle = store.put(b"bytes")
                with store.get(handle) as view:
                    print("read", bytes(view))
        except (gismo_core.GismoError, ValueError) as error:
            print(type(error).__name__, str(error)[:200].encode())
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{name}={value!r} ended badly")
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_environment(shm: Path, store_path: str, name: str) -> None:
    """Works or says why; no crash, no traceback, nothing in odd places."""
    environment = {key: text for key, text in os.environ.items() if not key.startswith("GISMO_")}
    if name != "XDG_RUNTIME_DIR":
        environment["GISMO_STATE_DIR"] = str(shm / "state")
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    path = "" if name == "GISMO_STORE" else store_path
    places = [Path("/etc"), Path("/")]
    before = {place: set(os.listdir(place)) for place in places}
    words = [sys.executable, "-c", TRY, path, name, json.dumps(HOSTILE[name])]
    done = subprocess.run(words, env=environment, cwd=shm, capture_output=True, text=True, timeout=120, check=False)
    after = {place: set(os.listdir(place)) for place in places}
    inner = gismo_core.probe(store_path).store_uuid.hex
    for place in places:
        if (place / inner).is_dir():  # root may write there, and was told to
            shutil.rmtree(place / inner)
        assert after[place] - before[place] <= {inner}
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = done.stdout.splitlines()
    assert len(said) == len(HOSTILE[name])
    assert all(line.startswith("read") or " " in line for line in said)
