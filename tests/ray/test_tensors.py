"""torch tensors through a real cluster: what comes out is what stock Ray gives. Needs torch: `make test-ray-long` installs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ray_pool
from gismo_core.ray import record, session, tensors, writing

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]

torch: Any = None  # not imported where these tests are only collected
LARGE = tensors.LARGE_BYTES // 4 + 1000  # float32


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray, on this machine, with a pool; yields the module ray."""
    global torch
    torch = pytest.importorskip("torch")
    with ray_pool.ray_here() as ray:
        yield ray


def large() -> Any:
    return torch.arange(LARGE, dtype=torch.float32)


TENSORS: dict[str, Callable[[], Any]] = {
    "large": large,
    "large, of three dimensions": lambda: large()[: 1 << 23].reshape(8, 1024, 1024),
    "large, of bits": lambda: large() > 5,
    "large, bfloat16": lambda: torch.cat([large(), large()]).to(torch.bfloat16),
    "large, float16": lambda: torch.cat([large(), large()]).to(torch.float16),
    "large, int64": lambda: large().to(torch.int64),
    "large, complex64": lambda: torch.complex(large(), large() + 1),
    "large, conjugate": lambda: torch.complex(large(), large() + 1).conj(),
    "large, every other": lambda: torch.arange(2 * LARGE, dtype=torch.float32)[::2],
    "large, with a gradient": lambda: large().requires_grad_(),
    "large, transposed": lambda: large()[: 1 << 23].reshape(1024, -1).t(),
    "float32": lambda: torch.arange(100_000, dtype=torch.float32),
    "bfloat16": lambda: torch.arange(100_000, dtype=torch.float32).to(torch.bfloat16),
    "uint8": lambda: torch.arange(300_000).to(torch.uint8),
    "a parameter": lambda: torch.nn.Parameter(torch.arange(100_000, dtype=torch.float32)),
    "of one number": lambda: torch.tensor(1.5),
    "of nothing": lambda: torch.empty(0, 3),
}


def same(one: Any, other: Any) -> bool:
    return (
        type(one) is type(other)
        and (one.dtype, one.shape, one.requires_grad) == (other.dtype, other.shape, other.requires_grad)
        and torch.equal(one.resolve_conj(), other.resolve_conj())
    )


@pytest.mark.parametrize("name", TENSORS)
def test_what_comes_out_is_what_went_in(cluster: Any, name: str) -> None:
    made = TENSORS[name]()
    reference = cluster.put({"it": made, "twice": [made]})
    first = cluster.get(reference)
    assert same(first["it"], made)
    assert same(first["twice"][0], made)

    def pass_on(tensor: Any) -> Any:
        with torch.no_grad():
            tensor += 1 if tensor.dtype != torch.bool else True  # everyone's own
        return tensor.detach()

    passed_on = cluster.remote(pass_on)
    with torch.no_grad():
        expected = (made + 1).detach() if made.dtype != torch.bool else made | True
    assert torch.equal(cluster.get(passed_on.remote(made)).resolve_conj(), expected.to(made.dtype).resolve_conj())
    assert same(cluster.get(reference)["it"], made)


def test_a_large_one_lies_in_the_store(cluster: Any) -> None:
    store = session.open_store()
    assert store is not None
    reference = cluster.put(large())
    assert any(info.handle.length >= 4 * LARGE for info in store.sealed(tag=record.TAG, mask=record.TAG_MASK))
    tensor = cluster.get(reference)
    assert same(tensor, large())


def test_the_way_of_ray_needs_no_gismo(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "write", lambda *_: None)
    context = cluster._private.worker.global_worker.get_serialization_context()
    here = session.current()
    assert here is not None
    made = ray_pool.serialized(context, here.internals.callers, {"it": large()}).to_bytes()
    assert len(made) >= 4 * LARGE
    assert b"gismo" not in made
    assert same(cluster.get(cluster.put({"it": large()}))["it"], large())
