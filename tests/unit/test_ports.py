"""Ports that tests give to servers."""

from __future__ import annotations

import socket

import ports


def test_none_is_given_twice_in_a_row() -> None:
    given = [ports.free(1)[0] for _ in range(200)] + ports.free(200)
    assert len(set(given)) == len(given)


def test_one_that_is_taken_is_not_given() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", ports.free(1)[0]))
        server.listen()
        taken = server.getsockname()[1]
        assert taken not in ports.free(1_000)  # once round: its turn comes
