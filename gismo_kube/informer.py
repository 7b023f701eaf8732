"""kopf as an informer: raw events only.

Its other handlers would put finalizers on objects and a copy of each spec into an annotation. Its index is what makes all
objects known before the first event is told.
"""

from __future__ import annotations

import logging
from typing import Any

import kopf

_WATCH_S = 300  # a watch is made anew after that, lest a connection that died silently is believed for ever


def registry(api: Any) -> kopf.OperatorRegistry:
    """For handlers on the API server and with the account of `api` (kubernetes.client.ApiClient)."""
    made = kopf.OperatorRegistry()
    for chatty in ("kopf.objects", "kopf.activities", "kopf._core.engines.activities", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    @kopf.on.startup(registry=made)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True  # the chart brings the CRDs before whoever watches; no right to watch them
        settings.watching.server_timeout = _WATCH_S
        settings.watching.client_timeout = _WATCH_S + 10
        settings.networking.request_timeout = 30

    @kopf.on.login(registry=made, retries=3)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return _connection(api.configuration)

    return made


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
        username=configuration.username or None,
        password=configuration.password or None,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )
