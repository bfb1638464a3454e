"""Lets accepted requests finish before the server stops.

SIGTERM alone does not: with gRPC streams open, Triton 2.51 waits for its exit timeout and then
hangs. Unloading the models first refuses new requests and answers the accepted ones. A client
that keeps an answered stream open holds its model in UNLOADING (triton-inference-server/
server#7626), so the front model's own request counters are asked as well.
"""

from __future__ import annotations

import contextlib
import re
import time
import urllib.request
from collections.abc import Iterable

from server.repository_api import RepositoryApi, ServerError

_RECEIVED = "kobart_requests_received"
_ANSWERED = (
    "kobart_requests_finished",
    "kobart_requests_cancelled",
    "kobart_requests_rejected",
    "kobart_requests_failed",
)
_POLL_S = 0.05
# The front model copies its counters to /metrics twice a second; look beyond two copies.
_SETTLED_S = 1.5


def drain(api: RepositoryApi, models: Iterable[str], metrics_url: str, *, deadline: float) -> bool:
    """Unload models and wait until their accepted requests are answered.

    Args:
        api: The server's repository API.
        models: Names of the models to unload.
        metrics_url: Triton's /metrics.
        deadline: `time.monotonic()` value to wait for at most.

    Returns:
        Whether every accepted request is known to be answered.
    """
    try:
        for model in models:
            api.unload(model)
        return _wait_until_answered(api, metrics_url, deadline)
    except ServerError:
        return False


def _wait_until_answered(api: RepositoryApi, metrics_url: str, deadline: float) -> bool:
    settled_since: float | None = None
    while time.monotonic() < deadline:
        if not any(state.state == "UNLOADING" for state in api.states().values()):
            return True
        if not _all_answered(metrics_url):
            settled_since = None
        elif settled_since is None:
            settled_since = time.monotonic()
        elif time.monotonic() - settled_since > _SETTLED_S:
            return True
        time.sleep(_POLL_S)
    return False


def _all_answered(metrics_url: str) -> bool:
    """Whether the front model has answered as many requests as it received."""
    text = ""
    with contextlib.suppress(OSError), _DIRECT.open(metrics_url, timeout=2.0) as response:
        text = response.read().decode("utf-8")
    values = {name: _sum_of(name, text) for name in (_RECEIVED, *_ANSWERED)}
    return _RECEIVED in text and values[_RECEIVED] == sum(values[name] for name in _ANSWERED)


def _sum_of(name: str, text: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{name}\{{.*\}} (\S+)$", text, re.MULTILINE))


# The server is on this machine: a proxy of the environment is not for it.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
