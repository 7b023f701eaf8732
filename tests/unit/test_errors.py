"""Errors: every status has a type, every type survives pickling, and says what it was told."""

from __future__ import annotations

import errno
import pickle
import re
from pathlib import Path

import pytest

import gismo_core
from gismo_core import errors
from gismo_core.cli import exits

HEADER = Path(gismo_core.__file__).parent / "native" / "gismo.h"
STATUSES = {name: int(value) for name, value in re.findall(r"GISMO_(E[A-Z]+) = (-\d+)", HEADER.read_text())}


def test_the_header_and_the_binding_agree() -> None:
    assert len(STATUSES) >= 16
    assert {name: getattr(errors, name) for name in STATUSES} == STATUSES


@pytest.mark.parametrize("status", sorted(STATUSES.values()))
def test_every_status_has_a_type(status: int) -> None:
    error = errors.from_status(status, "what happened; what to do", sys_errno=errno.EIO, asked_bytes=5)
    assert type(error) is not errors.GismoError
    assert isinstance(error, errors.GismoError)
    assert str(error) == "what happened; what to do"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert exits.code_of(error) not in (exits.OK, exits.INTERRUPTED)


def test_an_unknown_status_is_still_an_error() -> None:
    assert "-99" in str(errors.from_status(-99, "odd"))


def test_standard_bases() -> None:
    assert isinstance(errors.from_status(errors.EINVAL, "m"), ValueError)
    assert isinstance(errors.from_status(errors.EGONE, "m"), LookupError)
    assert isinstance(errors.from_status(errors.ENOTFOUND, "m"), LookupError)
    assert isinstance(errors.from_status(errors.EPERM, "m"), PermissionError)
    system = errors.from_status(errors.ESYS, "cannot open x", sys_errno=errno.ENOENT)
    assert isinstance(system, OSError)
    assert system.errno == errno.ENOENT
    assert isinstance(errors.from_status(errors.EEXIST, "m", exists=errors.NameTaken), errors.NameTaken)


def test_holders_are_looked_up_once_and_only_when_read() -> None:
    calls = []

    def find() -> tuple[gismo_core.Holder, ...]:
        calls.append(1)
        return (gismo_core.Holder("tag", 7, "tag 7", 1, 100),)

    error = errors.StoreFull("full", 1, 2, 3, 4, find)
    assert not calls
    assert error.holders == error.holders == (gismo_core.Holder("tag", 7, "tag 7", 1, 100),)
    assert len(calls) == 1
    assert pickle.loads(pickle.dumps(error)).holders == error.holders


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SystemCallError(errno.ENOENT, "m"), exits.NOT_FOUND),
        (errors.SystemCallError(errno.EACCES, "m"), exits.REFUSED),
        (errors.SystemCallError(errno.ENOSPC, "m"), exits.FULL),
        (FileNotFoundError(errno.ENOENT, "m"), exits.NOT_FOUND),
        (errors.Unsupported("m"), exits.ERROR),
        (errors.StoreFull("m"), exits.FULL),
        (errors.NotAStore("m"), exits.NOT_A_STORE),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exits.code_of(error) == code
