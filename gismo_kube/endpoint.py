"""What operator and agent answer by HTTP: /metrics for Prometheus, /livez and /readyz for the kubelet.

It is served by the event loop that does the work, so a loop that hangs does not answer. A check gives what is wrong, in
words; nothing where all is well. /livez fails only where starting the process anew would mend it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import InfoMetricFamily
from prometheus_client.registry import Collector

from gismo_kube.connection import CannotStart

Check = Callable[[], Awaitable[Iterable[str]]]


class _Build(Collector):
    def __init__(self, component: str, version: str) -> None:
        self._labels = {"component": component, "version": version}

    def collect(self) -> Iterable[InfoMetricFamily]:
        yield InfoMetricFamily("gismo_build", "Which Gismo this is.", value=self._labels)


def registry(component: str, version: str) -> CollectorRegistry:
    """With what every process of Gismo tells of itself."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, that nobody asks for
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    made.register(_Build(component, version))
    return made


def address(text: str) -> tuple[str | None, int]:
    """HOST:PORT, or :PORT for all addresses of the machine. ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not an address such as 127.0.0.1:8080 or :8080")
    return host.strip("[]") or None, int(port)


class Endpoint:
    """One that serves between start() and stop()."""

    def __init__(self, metrics: CollectorRegistry, live: Check, ready: Check) -> None:
        self._metrics = metrics
        self._checks = {"/livez": live, "/readyz": ready}
        self._runner: web.AppRunner | None = None

    async def start(self, where: tuple[str | None, int]) -> None:
        """CannotStart where the address is taken, or is not of this machine."""
        application = web.Application()
        application.add_routes([web.get("/metrics", self._measured)])
        application.add_routes([web.get(path, self._checked) for path in self._checks])
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, *where).start()
        except OSError as error:
            await self.stop()
            raise CannotStart(f"--listen: {error.strerror or error}; give another address") from error

    async def stop(self) -> None:
        """No answer after it."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _measured(self, request: web.Request) -> web.Response:
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        # Not in the loop: with thousands of series it takes longer than a probe should wait.
        return web.Response(body=await asyncio.to_thread(encode, self._metrics), headers={"Content-Type": kind})

    async def _checked(self, request: web.Request) -> web.Response:
        problems = list(await self._checks[request.path]())
        return web.Response(status=503 if problems else 200, text="\n".join(problems or ["ok"]) + "\n")
