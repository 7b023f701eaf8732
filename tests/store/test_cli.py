"""The command line on a real store: as a newcomer types it, as a script reads it, and when things go wrong."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gismo_core
from gismo_core import Handle, Store
from gismo_core.cli import exits, main
from gismo_core.cli.options import open_to_look
from gismo_core.cli.top import fit
from gismo_core.testing import in_fork


@dataclass
class Result:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def gismo(capfd: pytest.CaptureFixture[str], shm: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """gismo(*arguments): run a command inside this process, as a host of its own."""
    monkeypatch.setenv("GISMO_STATE_DIR", str(shm / "state"))
    monkeypatch.delenv("GISMO_STORE", raising=False)

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


def command(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """The same as a process: `python -m gismo_core …`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    environment.pop("PYTHONUNBUFFERED", None)  # an unbuffered stream takes a cut write for a whole one
    words = [sys.executable, "-m", "gismo_core", *map(str, arguments)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_a_newcomers_first_minute(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GISMO_STATE_DIR", str(shm / "state"))
    data = os.urandom(3_000_000)
    (shm / "FILE").write_bytes(data)
    script = f"""
set -e
gismo() {{ {sys.executable} -m gismo_core "$@"; }}
gismo format --size 64MiB {shm}/pool && HANDLE=$(gismo put {shm}/pool {shm}/FILE) && gismo get {shm}/pool $HANDLE > {shm}/BACK
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (shm / "BACK").read_bytes() == data
    assert (shm / "pool").stat().st_mode & 0o777 == 0o600


def test_put_get_rm(gismo: Run, store_path: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 1000)
    put = gismo("put", store_path, source, "--name", "data", "--tag", 7, "--json")
    handle = put.document["handle"]
    assert put.document == {"handle": handle, "nbytes": 256_000}
    for what in (handle, "data"):
        assert gismo("get", store_path, what, "-o", target).code == exits.OK
        assert target.read_bytes() == source.read_bytes()
    described = gismo("get", store_path, "data", "--json").document
    assert (described["handle"], described["name"], described["tag"]) == (handle, "data", 7)
    assert gismo("rm", store_path, "data").code == exits.OK
    gone = gismo("get", store_path, handle)
    assert gone.code == exits.NOT_FOUND
    assert gone.err.startswith("gismo: ")
    assert gismo("get", store_path, "data").code == exits.NOT_FOUND
    assert gismo("rm", store_path, handle).code == exits.NOT_FOUND
    assert gismo("rm", store_path, handle, "data", "--force").code == exits.OK


def test_put_computes_a_crc(gismo: Run, store_path: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    gismo("put", store_path, tmp_path / "f")
    assert gismo("fsck", store_path, "--verify", "--json").document["report"]["payloads_verified"] == 1


@pytest.mark.parametrize("data", [b"", b"from a pipe", bytes(5_000_000)])
def test_standard_input_and_output(store_path: str, shm: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setenv("GISMO_STATE_DIR", str(shm / "state"))
    put = command("put", f"file:{store_path}", "-", stdin=subprocess.PIPE)
    handle, errors = put.communicate(data)
    assert put.returncode == 0, errors
    got, errors = command("get", store_path, handle.decode().strip()).communicate()
    assert got == data, errors


def test_what_is_there_is_not_overwritten(gismo: Run, shm: Path) -> None:
    precious = shm / "precious"
    precious.write_bytes(b"precious" * 100)
    refused = gismo("format", precious, "--size", "64MiB")
    assert refused.code == exits.REFUSED
    assert precious.read_bytes() == b"precious" * 100
    assert gismo("format", precious, "--size", "64MiB", "--force").code == exits.OK
    assert gismo("format", precious, "--size", "64MiB").code == exits.REFUSED


def test_format_says_what_it_needs(gismo: Run, shm: Path) -> None:
    missing = gismo("format", shm / "new")
    assert missing.code == exits.USAGE
    assert "--size" in missing.err
    assert not (shm / "new").exists()
    for bad in (("--size", "lots"), ("--size", "64MiB", "--mode", "9"), ("--size", "64MiB", "--max-hosts", "65")):
        assert gismo("format", shm / "new", *bad).code == exits.USAGE
    assert gismo("format", shm / "absent" / "new", "--size", "64MiB").code == exits.NOT_FOUND
    made = gismo("format", shm / "new", "--size", "64MiB", "--mode", "660", "--max-hosts", "4", "--json").document
    assert made["max_hosts"] == 4
    assert (shm / "new").stat().st_mode & 0o777 == 0o660


def test_not_a_store(gismo: Run, shm: Path) -> None:
    (shm / "text").write_text("hello " * 10_000)
    for words in (("info",), ("ls",), ("fsck",), ("hosts",), ("get", "x"), ("rm", "x"), ("top",)):
        assert gismo(words[0], shm / "text", *words[1:]).code == exits.NOT_A_STORE
        assert gismo(words[0], shm / "nothing", *words[1:]).code == exits.NOT_A_STORE


def test_errors_as_json(gismo: Run, store_path: str) -> None:
    failed = gismo("get", store_path, "nobody", "--json")
    assert failed.code == exits.NOT_FOUND
    assert failed.out == ""
    assert json.loads(failed.err)["error"]["type"] == "NameNotFound"
    assert json.loads(gismo("get", "--json").err)["error"]["type"] == "Usage"


def test_usage(gismo: Run, store_path: str) -> None:
    for words in (
        ("nonsense",),
        ("get", store_path),
        ("rm", store_path),
        ("rm", store_path, "--all", "x"),
        ("rm", store_path, "x", "--tag", 1),
        ("get", store_path, "gismo1-mistyped"),
        ("put", store_path, "x", "--tag", 2**64),
        ("put", store_path, "x", "--wait", "nan"),
        ("top", store_path, "--once", "--interval", "nan"),
        ("top", store_path, "--once", "--interval", "inf"),
        ("put", store_path, "x", "--state-dir", ""),
        ("info",),
    ):
        assert gismo(*words).code == exits.USAGE, words
    missing = gismo("put", store_path, "/nonexistent")
    assert missing.code == exits.NOT_FOUND
    assert missing.err == "gismo: /nonexistent: No such file or directory\n"
    assert "GISMO_STORE" in gismo("ls").err


def test_full(gismo: Run, store_path: str, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as out:
        out.truncate(65 << 20)
    failed = gismo("put", store_path, large)
    assert failed.code == exits.FULL
    assert gismo("ls", store_path, "--json", "--all").document == []


def test_what_never_ends_is_too_large(store_path: str, shm: Path) -> None:
    with open("/dev/zero", "rb") as zeros:
        putting = command("put", store_path, "-", "--state-dir", shm / "state", "--json", stdin=zeros)
        _, errors = putting.communicate(timeout=60)
    assert putting.returncode == exits.FULL
    assert json.loads(errors)["error"]["type"] == "StoreFull"


def test_the_store_from_the_environment(gismo: Run, store_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GISMO_STORE", store_path)
    info = gismo("info", "--json").document
    assert info["info"]["store_uuid"] == str(gismo_core.probe().store_uuid)
    assert gismo("ls").code == exits.OK


def test_seeing(gismo: Run, store: Store, store_path: str) -> None:
    first = store.put(bytes(10_000), name="first", tag=3)
    second = store.put(b"x", tag=4)
    view = store.get(first)
    draft = store.create(5000)

    listed = gismo("ls", store_path, "--json").document
    assert {one["handle"] for one in listed} == {str(first), str(second)}
    assert [one["name"] for one in gismo("ls", store_path, "--tag", 3, "--json").document] == ["first"]
    assert len(gismo("ls", store_path, "--all", "--json").document) == 3
    assert len(gismo("ls", store_path, "--limit", 1, "--json").document) == 1
    text = gismo("ls", store_path).out
    assert str(first) in text
    assert "9.8 KiB" in text

    info = gismo("info", store_path, "--json").document
    assert info["stats"]["sealed_objects"] == 2
    assert "2 sealed, 1 being written" in gismo("info", store_path).out
    assert gismo("hosts", store_path, "--json").document[0]["state"] == "active"
    assert "active" in gismo("hosts", store_path).out

    top = gismo("top", store_path, "--once", "--interval", "0.1", "--json").document
    assert {one["tag"]: one["objects"] for one in top["tags"]}[3] == 1
    assert any(one["pid"] == os.getpid() for one in top["processes"])
    assert "puts_per_s" in top["processes"][0]
    assert top["hosts"]
    assert str(os.getpid()) in gismo("top", store_path, "--once", "--interval", "0.1").out

    checked = gismo("fsck", store_path, "--verify", "--json")
    assert checked.code == exits.OK
    assert {(one["state"], one["handle"]) for one in checked.document["held"]} >= {("sealed", str(first))}
    text = gismo("fsck", store_path).out
    assert "writing" in text
    assert "pinned" in text
    assert "clean" in text
    view.release()
    draft.abort()


def test_top_tells_the_pins_of_each_host(gismo: Run, store: Store, store_path: str, shm: Path) -> None:
    handles = [store.put(b"x") for _ in range(3)]
    with gismo_core.open(store_path, state_dir=shm / "other") as other:
        views = [other.get(handle) for handle in handles[:2]] + [store.get(handles[0]) for _ in range(4)]
        seen = gismo("top", store_path, "--state-dir", shm / "state", "--once", "--interval", "0.1", "--json").document
        assert {one["host_id"]: one["pins"] for one in seen["hosts"]} == {store.host_id: 4, other.host_id: 2}
        del views


def test_rates_of_top(store: Store, store_path: str, shm: Path) -> None:
    watching = command("top", store_path, "--state-dir", shm / "state", "--interval", "0.5", "--once", "--json")
    end_s = time.monotonic() + 60
    while watching.poll() is None and time.monotonic() < end_s:
        store.delete(store.put(bytes(1000)))
    out, errors = watching.communicate()
    assert watching.returncode == 0, errors
    seen = json.loads(out)
    (mine,) = [one for one in seen["processes"] if one["pid"] == os.getpid()]
    assert mine["puts_per_s"] > 10
    assert mine["deletes_per_s"] > 10
    assert mine["put_bytes_per_s"] == pytest.approx(1000 * mine["puts_per_s"], rel=0.01)
    assert seen["store"]["puts_per_s"] > 10


def test_names_cannot_steer_the_terminal(gismo: Run, store: Store, store_path: str) -> None:
    store.put(b"x", name="a\x1b[31mb\nc\td")
    listed = gismo("ls", store_path).out
    assert r"a\x1b[31mb\nc\td" in listed
    assert len(listed.splitlines()) == 2
    assert gismo("ls", store_path, "--json").document[0]["name"] == "a\x1b[31mb\nc\td"


def test_a_screen_is_no_larger_than_the_window() -> None:
    text = "\n".join("x" * 200 for _ in range(50))
    rows = fit(text, 80, 24).split("\n")
    assert len(rows) == 23
    assert {len(row) for row in rows[:-1]} == {80}
    assert rows[-1].startswith("... 28 more lines")
    assert fit("few\nlines", 80, 24) == "few\nlines"
    assert fit("few\nlines", 2, 3) == "fe\nli"


def test_half_an_object_is_not_left_behind(gismo: Run, store: Store, store_path: str, shm: Path) -> None:
    handle = store.put(bytes(10 << 20))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, before[1]))
    try:
        (shm / "there").write_bytes(b"")
        for name in ("new", "there"):
            failed = gismo("get", store_path, handle, "-o", shm / name)
            assert failed.code == exits.ERROR
            assert str(shm / name) in failed.err
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    assert not (shm / "new").exists()
    assert (shm / "there").exists()
    assert gismo("get", store_path, handle, "-o", "/dev/full").code == exits.FULL
    assert Path("/dev/full").exists()


@pytest.mark.parametrize("words", [("info",), ("get", "x"), ("ls", "--json")])
def test_without_a_standard_output(store: Store, store_path: str, words: tuple[str, ...]) -> None:
    store.put(b"x", name="x")
    closed = command(words[0], store_path, *words[1:], preexec_fn=lambda: os.close(1))
    _, errors = closed.communicate()
    assert closed.returncode == exits.ERROR
    assert errors.startswith(b"gismo: standard output is closed")


def test_without_a_standard_input(store: Store, store_path: str) -> None:
    closed = command("put", store_path, "-", preexec_fn=lambda: os.close(0))
    _, errors = closed.communicate()
    assert closed.returncode == exits.USAGE
    assert b"standard input is closed" in errors
    assert store.stats().sealed_objects == 0


def test_a_store_is_never_a_standard_stream(store_path: str, shm: Path) -> None:
    """Else what anybody prints goes over the superblock."""
    words = (
        "import os, sys, gismo_core\n"
        "[os.close(fd) for fd in (0, 1, 2)]\n"
        "store = gismo_core.open(sys.argv[1], state_dir=sys.argv[2])\n"
        "for fd in (0, 1, 2):\n"
        "    try: os.write(fd, b'x' * 8192)\n"
        "    except OSError: pass\n"
        "store.close()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    subprocess.run([sys.executable, "-c", words, store_path, shm / "state"], env=environment, check=True, timeout=60)
    with gismo_core.open(store_path, read_only=True) as store:
        assert store.fsck().ok


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_looking_where_another_user_has_a_state_directory(shm: Path) -> None:
    gismo_core.format(shm / "pool", size=8 << 20, mode=0o644)
    (shm / "state").mkdir(mode=0o700)
    os.chmod(shm, 0o755)

    def look() -> None:
        os.setgid(65534)
        os.setuid(65534)
        with open_to_look(str(shm / "pool"), state_dir=str(shm / "state")) as store:
            assert store.fsck().ok

    in_fork(look)


def test_rm_all(gismo: Run, store: Store, store_path: str) -> None:
    for tag in (1, 1, 2):
        store.put(b"x", tag=tag)
    assert gismo("rm", store_path, "--all").code == exits.USAGE
    assert store.stats().sealed_objects == 3
    assert len(gismo("rm", store_path, "--all", "--tag", 1, "--force", "--json").document["deleted"]) == 2
    assert gismo("rm", store_path, "--all", "--force").out == "1 objects deleted\n"
    assert all(one.state == gismo_core.ObjectState.DELETED for one in store.objects())


def test_repair_of_a_sound_store_changes_nothing(gismo: Run, store: Store, store_path: str) -> None:
    handle = store.put(b"abc")
    done = gismo("fsck", store_path, "--repair", "--verify", "--json")
    assert done.code == exits.OK
    assert done.document["report"]["repaired"] == 0
    assert bytes(store.get(handle)) == b"abc"


def test_fsck_finds_a_changed_payload(gismo: Run, store: Store, store_path: str) -> None:
    handle = store.put(b"precious" * 100)
    with open(store_path, "r+b") as medium:
        medium.seek(handle.offset + 50)
        medium.write(b"X")
    with pytest.raises(gismo_core.CorruptStore):
        store.get(handle).verify()
    found = gismo("fsck", store_path, "--verify", "--json")
    assert found.code == exits.CORRUPT
    assert found.document["report"]["errors"] == 1
    assert any(one["severity"] == "error" for one in found.document["report"]["findings"])
    assert gismo("fsck", store_path).code == exits.OK


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_damaged_superblock_is_mended(gismo: Run, store_path: str, which: str) -> None:
    at = 60 if which == "first" else os.path.getsize(store_path) - 4096 + 60
    sound = Path(store_path).read_bytes()
    with open(store_path, "r+b") as medium:
        medium.seek(at)
        medium.write(b"\xff")
    found = gismo("fsck", store_path)
    assert found.code == exits.CORRUPT
    assert f"the {which} superblock is damaged" in found.out
    assert "--repair" in found.out
    mended = gismo("fsck", store_path, "--repair", "--json")
    assert mended.code == exits.OK
    assert mended.document["report"]["repaired"] == 1
    assert gismo("fsck", store_path).code == exits.OK
    now = Path(store_path).read_bytes()
    assert now[:4096] == sound[:4096]
    assert now[-4096:] == sound[-4096:]


def test_a_store_that_was_cut_says_so(gismo: Run, store_path: str) -> None:
    os.truncate(store_path, os.path.getsize(store_path) // 2)
    for words in (("info",), ("ls",), ("get", "x"), ("fsck",), ("fsck", "--repair")):
        failed = gismo(words[0], store_path, *words[1:])
        assert failed.code == exits.CORRUPT
        assert "was cut" in failed.err
        assert "format --force" in failed.err


def test_doctor(gismo: Run, store_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = gismo("doctor", store_path, "--json")
    by_name = {one["name"]: one for one in checked.document["checks"]}
    assert by_name["libgismo.so"]["status"] == "ok"
    assert by_name["store"]["status"] == "ok"
    assert by_name["state directory"]["status"] == "ok"
    assert checked.code == exits.OK
    monkeypatch.setenv("GISMO_STORR", "x")
    assert "misspelt" in gismo("doctor").out
    broken = gismo("doctor", "/dev/null")
    assert broken.code == exits.ERROR


def test_help_names_the_exit_codes(gismo: Run) -> None:
    for words in ((), ("format",), ("put",), ("fsck",)):
        shown = gismo(*words, "--help")
        assert shown.code == exits.OK
        assert "3 not found" in shown.out
    assert gismo("--version").out.startswith("gismo ")


def test_a_closed_pipe_is_quiet(store: Store, store_path: str, shm: Path) -> None:
    for _ in range(3000):
        store.put(b"x")
    listing = command("ls", store_path)
    assert listing.stdout is not None
    assert listing.stderr is not None
    listing.stdout.readline()
    listing.stdout.close()
    assert listing.wait(60) == exits.NO_READER == 128 + signal.SIGPIPE
    assert listing.stderr.read() == b""
    listing.stderr.close()


def test_ctrl_c(store: Store, store_path: str, shm: Path) -> None:
    watching = command("top", store_path, "--state-dir", shm / "state", "--interval", "0.2", "--json")
    assert watching.stdout is not None
    watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=60)
    assert watching.returncode == exits.INTERRUPTED
    assert errors.strip() == b"gismo: interrupted"


def test_ctrl_c_ends_a_long_wait(store: Store, store_path: str, shm: Path) -> None:
    waiting = command("get", store_path, "never", "--wait", "600", "--state-dir", shm / "state")
    deadline_s = time.monotonic() + 60
    while len(store.processes()) < 2 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    time.sleep(0.2)
    waiting.send_signal(signal.SIGINT)
    waiting.communicate(timeout=60)
    assert waiting.returncode == exits.INTERRUPTED


def test_ctrl_c_ends_a_format(shm: Path) -> None:
    """Python sees a signal at the first step of a callback: outside of every `try` in it, so ctypes threw it away."""
    pool = shm / "pool"
    words = (
        "import gismo_core, sys, itertools\n"
        "begun = itertools.count()\n"
        "tell = lambda *_: next(begun) or print(flush=True)\n"
        "gismo_core.format(sys.argv[1], size=2 << 30, progress=tell)\n"
    )
    formatting = subprocess.Popen(
        [sys.executable, "-c", words, pool], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert formatting.stdout is not None
    formatting.stdout.readline()
    time.sleep(0.02)  # it is inside the core again
    formatting.send_signal(signal.SIGINT)
    _, errors = formatting.communicate(timeout=120)
    assert formatting.returncode == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")
    assert "ignored" not in errors
    assert not pool.exists()


def test_an_exception_in_progress_stops_a_format(shm: Path) -> None:
    def stop(_: int, __: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gismo_core.format(shm / "pool", size=8 << 20, progress=stop)
    assert not (shm / "pool").exists()


def test_on_a_terminal_nothing_is_cut(store: Store, store_path: str, shm: Path) -> None:
    handle = store.put(bytes(100), name="a-name", tag=2**64 - 1)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "TERM": "xterm"}
    environment["GISMO_STATE_DIR"] = str(shm / "state")
    words = [sys.executable, "-m", "gismo_core", "ls", store_path]
    with subprocess.Popen(words, env=environment, stdout=theirs, stderr=theirs) as listing:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other side is closed
            while piece := os.read(ours, 65536):
                shown += piece
    os.close(ours)
    assert listing.returncode == 0
    for text in (str(handle), "a-name", str(2**64 - 1)):
        assert text.encode() in shown


def test_handles_are_one_printable_word(gismo: Run, store_path: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    (token,) = gismo("put", store_path, tmp_path / "f").out.split()
    assert Handle.parse(token).length == 3
