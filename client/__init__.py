"""Python client of a served KoBART: text in, typed summaries out, over Triton's gRPC port."""

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
