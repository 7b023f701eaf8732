"""What is answered by HTTP."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import Iterable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gismo_kube import endpoint
from gismo_kube.connection import CannotStart
from gismo_kube.endpoint import Endpoint


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_probes_say_what_is_wrong_and_metrics_are_there() -> None:
    wrong: list[str] = []

    async def live() -> Iterable[str]:
        return wrong

    async def ready() -> Iterable[str]:
        return ["not listed yet: nodes"]

    async def story() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        one = Endpoint(endpoint.registry("agent", "1.2.3"), live, ready)
        await one.start(("127.0.0.1", port))
        try:
            assert await asyncio.to_thread(get, port, "/livez") == (200, "ok\n")
            wrong[:] = ["a", "b"]
            assert await asyncio.to_thread(get, port, "/livez") == (503, "a\nb\n")
            assert await asyncio.to_thread(get, port, "/readyz") == (503, "not listed yet: nodes\n")
            assert (await asyncio.to_thread(get, port, "/other"))[0] == 404
            code, text = await asyncio.to_thread(get, port, "/metrics")
            assert code == 200
            found = {one.name: one for one in text_string_to_metric_families(text)}
            assert found["gismo_build_info"].samples[0].labels == {"component": "agent", "version": "1.2.3"}
            assert "process_cpu_seconds" in found
            with pytest.raises(CannotStart, match="give another address"):
                await Endpoint(endpoint.registry("agent", ""), live, ready).start(("127.0.0.1", port))
        finally:
            await one.stop()

    asyncio.run(story())


def test_addresses() -> None:
    assert endpoint.address(":8080") == (None, 8080)
    assert endpoint.address("127.0.0.1:1") == ("127.0.0.1", 1)
    assert endpoint.address("[::1]:65535") == ("::1", 65535)
    for wrong in ("8080", "host:", ":http", ":0", ":65536"):
        with pytest.raises(ValueError, match="is not an address"):
            endpoint.address(wrong)
