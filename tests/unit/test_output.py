"""How the command line reads sizes and shows things."""

from __future__ import annotations

import json
import time
import uuid

import click
import pytest

from gismo_core import Handle, HostState, Severity
from gismo_core.cli import output
from gismo_core.records import Finding


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("4GiB", 4 << 30),
        ("4g", 4 << 30),
        ("512M", 512 << 20),
        ("1.5GiB", 3 << 29),
        ("10GB", 10**10),
        ("65536", 65536),
        ("7 b", 7),
        ("1TiB", 1 << 40),
        ("2kib", 2048),
    ],
)
def test_sizes(text: str, nbytes: int) -> None:
    assert output.SIZE.convert(text, None, None) == nbytes


@pytest.mark.parametrize("text", ["", "GiB", "4 elephants", "-1GiB", "1e9", "4GiBB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(click.BadParameter, match="4GiB"):
        output.SIZE.convert(text, None, None)


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0 B"), (1023, "1023 B"), (4 << 30, "4 GiB"), (1536, "1.5 KiB"), (5 << 40, "5 TiB")]
)
def test_size_text(nbytes: int, text: str) -> None:
    assert output.size_text(nbytes) == text


def test_time_text_of_nonsense_does_not_fail() -> None:
    assert output.time_text(0) == "-"
    assert output.time_text(2**64 - 1)
    assert output.age_text(time.time_ns() - 10**9 * 7200) == "2h"
    assert output.age_text(2**64 - 1) == "0s"


def test_plain_is_json() -> None:
    handle = Handle(bytes(48))
    made = output.plain(
        {
            "handle": handle,
            "state": HostState.ACTIVE,
            "id": uuid.UUID(int=1),
            "all": (Finding(Severity.ERROR, "c", "m", 1),),
        }
    )
    assert json.loads(json.dumps(made)) == {
        "handle": str(handle),
        "state": "active",
        "id": "00000000-0000-0000-0000-000000000001",
        "all": [{"severity": "error", "code": "c", "message": "m", "slot": 1}],
    }


def test_table_text() -> None:
    assert output.table_text((">n", "name"), [("1", "a"), ("22", "bb")]) == " n  name\n 1  a\n22  bb"
    assert output.table_text(("a",), []) == "a"
