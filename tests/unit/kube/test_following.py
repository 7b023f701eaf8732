"""Is what is to be followed followed? By the requests that begin."""

from __future__ import annotations

from gismo_kube.following import Following
from set_clock import Clock

_POOLS = "/apis/gismo.io/v1alpha1/gismopools"
_NODES = "/api/v1/nodes"


def test_a_kind_is_listed_when_its_watch_begins() -> None:
    following = Following("nodes", "gismopools")
    following.request(_NODES, is_watch=False)
    following.request(_POOLS, is_watch=False)
    assert following.unlisted() == {"nodes", "gismopools"}
    following.request(_NODES, is_watch=True)
    assert following.unlisted() == {"gismopools"}
    following.request(_POOLS, is_watch=True)
    assert not following.unlisted()


def test_a_watch_is_dead_when_no_request_begins_any_more() -> None:
    clock = Clock()
    following = Following("nodes", "gismopools", watch_s=300, clock=clock)
    for _ in range(5):
        clock.now += 300  # a watch ends, and the next one begins
        following.request(_NODES, is_watch=True)
        following.request(_POOLS, is_watch=True)
        assert list(following.problems()) == []
    clock.now += 301
    following.request(_NODES, is_watch=False)
    assert list(following.problems()) == [], "what lies between two of them may take a while"
    clock.now += 100
    assert list(following.problems()) == ["the watch of gismopools is dead: no request for 401 s"]
    following.request("/apis/other.io/v1/others", is_watch=True)
    following.request(_POOLS, is_watch=False)  # a failed one counts: it is tried again and again
    assert list(following.problems()) == []


def test_a_watch_that_never_began_is_dead_too() -> None:
    clock = Clock()
    following = Following("nodes", watch_s=300, clock=clock)
    clock.now += 391
    assert list(following.problems()) == ["the watch of nodes is dead: no request for 391 s"]
