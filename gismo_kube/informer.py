"""kopf as an informer: raw events only.

Its other handlers would put finalizers on objects and a copy of each spec into an annotation. Its index is what makes all
objects known before the first event is told.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import aiohttp
import kopf

from gismo_kube.connection import REFUSED, CannotStart
from gismo_kube.following import WATCH_S, Following


def registry(api: Any, following: Following) -> kopf.OperatorRegistry:
    """For handlers on the API server and with the account of `api` (kubernetes.client.ApiClient)."""
    made = kopf.OperatorRegistry()
    for chatty in ("kopf.objects", "kopf.activities", "kopf._core.engines.activities", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    @kopf.on.startup(registry=made)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True  # the chart brings the CRDs before whoever watches; no right to watch them
        settings.watching.server_timeout = WATCH_S
        settings.watching.client_timeout = WATCH_S + 10
        settings.networking.request_timeout = 30

    @kopf.on.login(registry=made, retries=3)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return _session(_connection(api.configuration), following)

    return made


class Running:
    """kopf with these handlers, until a signal, or stop()."""

    def __init__(self, made: kopf.OperatorRegistry, identity: str) -> None:
        self._registry = made
        self._identity = identity
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """CannotStart where the API server refuses the credentials, now or later."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(
            # Its own identity has the user's name, which a bare number has not. Not its stop_flag: after a signal kopf
            # waits for that in vain, 5 s long.
            kopf.operator(
                registry=self._registry, identity=cast(Any, self._identity), clusterwide=True, standalone=True
            )
        )
        try:
            if not self._stopped:
                await self._task
        except kopf.LoginError as error:
            raise CannotStart(REFUSED) from error
        except asyncio.CancelledError:
            if not self._stopped:
                raise
        finally:
            self._task.cancel()

    def stop(self) -> None:
        """From any thread."""
        self._stopped = True
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)


def _session(info: kopf.ConnectionInfo, following: Following) -> kopf.AiohttpSession:
    """As kopf makes its own, but with an eye on the requests. kopf closes it."""

    async def began(_: Any, __: Any, request: aiohttp.TraceRequestStartParams) -> None:
        following.request(request.url.path, is_watch="watch" in request.url.query)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(began)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        trace_configs=[trace],
    )
    return kopf.AiohttpSession(server=info.server, aiohttp_session=session)


def _connection(configuration: Any) -> kopf.ConnectionInfo:
    """A token that rotates is read again each time that kopf asks."""
    header = configuration.get_api_key_with_prefix("BearerToken") or configuration.get_api_key_with_prefix(
        "authorization"
    )
    scheme, _, token = (header or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )
