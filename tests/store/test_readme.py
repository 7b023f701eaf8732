"""Every example of the README is run here as it stands there, but for the place of the store."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of that language ("" for none)."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def commands() -> list[str]:
    """The `gismo …` lines, comments cut off."""
    lines = [line.split("#")[0].strip() for block in blocks("") for line in block.splitlines()]
    return [line for line in lines if line.startswith("gismo ")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GISMO_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text(README)
    return tmp_path / "pool"


def run(command: str, place: Path) -> str:
    line = command.replace("/dev/shm/pool", str(place))
    if line.startswith("gismo top"):
        line += " --once"  # what runs until it is interrupted, once
    return subprocess.run(line, shell=True, check=True, capture_output=True, text=True, timeout=60).stdout


def test_the_commands(place: Path) -> None:
    assert len(commands()) >= 4
    handle = ""
    for command in commands():
        output = run(command.replace("HANDLE", handle), place)
        if command.startswith("gismo put"):
            handle = output.strip()
        if command.startswith("gismo get"):
            assert output == README
    assert handle.startswith("gismo1-")


def test_the_program(place: Path) -> None:
    (program,) = blocks("python")
    run("gismo format --size 64MiB /dev/shm/pool", place)
    done = subprocess.run(
        [sys.executable, "-c", program.replace("/dev/shm/pool", str(place))],
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert done.stdout == b"b'one copy, every host'\n"


def test_the_two_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("")), re.MULTILINE)
    assert targets == ["demo", "test"]
    assert all(f"\n{target}:" in makefile for target in targets)
