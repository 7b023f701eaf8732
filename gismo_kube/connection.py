"""The way to the API server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from kubernetes import client, config, dynamic
from kubernetes.dynamic.exceptions import DynamicApiError, ResourceNotFoundError, UnauthorizedError

# What a request to the API server, or the way to it, may raise.
REQUEST_ERRORS = (client.ApiException, urllib3.exceptions.HTTPError, OSError)
REFUSED = "the API server refused the credentials: a token that has expired, or of another cluster?"
_NO_CACHE = "/dev/null/none"  # what is served is asked anew: no file in a /tmp that others write, or that is not there


class CannotStart(RuntimeError):
    """In words that say what to do."""


def api_client(kubeconfig: str | None) -> Any:
    """kubernetes.client.ApiClient. None: the pod's service account, or $KUBECONFIG, or ~/.kube/config."""
    if kubeconfig:
        config.load_kube_config(kubeconfig)
    else:
        config.load_config()
    configuration = client.Configuration.get_default_copy()
    configuration.retries = False  # who asks tries again; a call that tries by itself would outlast a Lease
    return client.ApiClient(configuration)


def dynamic_client(api: Any) -> dynamic.DynamicClient:
    """Of all kinds that the API server has."""
    return dynamic.DynamicClient(api, cache_file=_NO_CACHE)


@contextmanager
def starting() -> Iterator[None]:
    """What goes wrong on the way to the API server, as CannotStart."""
    try:
        yield
    except config.ConfigException as error:
        raise CannotStart(f"no way to an API server: {error}; give --kubeconfig, or run it in a pod") from error
    except ResourceNotFoundError as error:
        raise CannotStart(f"{error}: apply the files of crds/ first, or install the chart") from error
    except UnauthorizedError as error:
        raise CannotStart(REFUSED) from error
    except REQUEST_ERRORS as error:
        raise CannotStart(f"the API server does not answer: {in_words(error)}") from error


def in_words(error: Exception) -> str:
    """One line for a log."""
    if isinstance(error, DynamicApiError):
        return str(error.summary())
    if isinstance(error, client.ApiException):
        return f"{error.status} {error.reason}"
    return f"{type(error).__name__}: {error}"
