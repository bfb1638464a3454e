"""Python client of a served KoBART: text in, typed summaries out, over Triton's gRPC port."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.async_client import AsyncKobartClient
    from client.config import RetryPolicy
    from client.errors import (
        ClientClosedError,
        ModelNotReadyError,
        ServerError,
        ServerUnreachableError,
    )
    from client.results import Summary, SummaryChunk
    from client.sync_client import KobartClient
    from kobart_runtime.errors import (
        ConfigError,
        DeadlineExceededError,
        InvalidArgumentError,
        KobartError,
        OverloadedError,
        RequestCancelledError,
        RequestError,
    )

__all__ = [
    "AsyncKobartClient",
    "ClientClosedError",
    "ConfigError",
    "DeadlineExceededError",
    "InvalidArgumentError",
    "KobartClient",
    "KobartError",
    "ModelNotReadyError",
    "OverloadedError",
    "RequestCancelledError",
    "RequestError",
    "RetryPolicy",
    "ServerError",
    "ServerUnreachableError",
    "Summary",
    "SummaryChunk",
]

_MODULES = {
    "AsyncKobartClient": "client.async_client",
    "ClientClosedError": "client.errors",
    "ConfigError": "kobart_runtime.errors",
    "DeadlineExceededError": "kobart_runtime.errors",
    "InvalidArgumentError": "kobart_runtime.errors",
    "KobartClient": "client.sync_client",
    "KobartError": "kobart_runtime.errors",
    "ModelNotReadyError": "client.errors",
    "OverloadedError": "kobart_runtime.errors",
    "RequestCancelledError": "kobart_runtime.errors",
    "RequestError": "kobart_runtime.errors",
    "RetryPolicy": "client.config",
    "ServerError": "client.errors",
    "ServerUnreachableError": "client.errors",
    "Summary": "client.results",
    "SummaryChunk": "client.results",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: without gRPC the commands still start, and say what is missing."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
