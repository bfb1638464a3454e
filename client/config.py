"""Where a client sends its requests, how long it waits and how often it tries."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from client.errors import ModelNotReadyError, error_from_status
from kobart_runtime.errors import ConfigError, KobartError

MAX_TIMEOUT_S = 7 * 24 * 3600.0
READY_TIMEOUT_S = 5.0  # of the question whether the model is loaded
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s/:]+):\d{1,5}")

CHANNEL_OPTIONS = (
    # Triton answers pings that come more often than every 300 s by closing the connection.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A host that swallows packets is given up after this, not after gRPC's 20 s.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A server that restarts is found again within the first retries.
    ("grpc.initial_reconnect_backoff_ms", 200),
)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """When a request that failed with UNAVAILABLE is sent again.

    All of UNAVAILABLE is retried: a full queue drains, a model is reloaded, a server restarts,
    and a summary is the same however often it is asked for. A wrong URL thereby fails after
    one or two seconds. Nothing else is retried, and nothing after the first streamed chunk.
    """

    max_attempts: int = 5  # the first one included; 1 = never again
    initial_backoff_s: float = 0.1  # doubles with every attempt
    max_backoff_s: float = 2.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigError(f"max_attempts must be at least 1, got {self.max_attempts}")
        if not 0 <= self.initial_backoff_s <= self.max_backoff_s:
            raise ConfigError(
                f"initial_backoff_s must be 0..max_backoff_s ({self.max_backoff_s}), "
                f"got {self.initial_backoff_s}"
            )

    def delays_s(self) -> Iterator[float]:
        """Seconds to wait before each further attempt.

        Each is drawn from the upper half of its range, so that callers refused together do
        not come back together.
        """
        backoff_s = self.initial_backoff_s
        for _ in range(self.max_attempts - 1):
            yield random.uniform(0.5, 1.0) * backoff_s
            backoff_s = min(2 * backoff_s, self.max_backoff_s)


DEFAULT_RETRY = RetryPolicy()


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """What all requests of one client share."""

    url: str = "localhost:8001"  # host:port of Triton's gRPC service
    model: str = "kobart"
    timeout_s: float = 120.0  # of one request, its retries included
    retry: RetryPolicy = DEFAULT_RETRY

    def __post_init__(self) -> None:
        if not _HOST_AND_PORT.fullmatch(self.url):
            raise ConfigError(
                f"url must be HOST:PORT of Triton's gRPC service, such as {ClientConfig.url}, "
                f"got {self.url!r}"
            )
        if not self.model:
            raise ConfigError("model must be the name of the front model, got an empty name")
        check_timeout(self.timeout_s)

    def error(self, status: str, message: str | None) -> KobartError:
        """The typed error of a failed call, from its gRPC status name and message."""
        return error_from_status(status, message or "", url=self.url, model=self.model)

    def not_ready(self, reason: str) -> ModelNotReadyError:
        """The error of a server that answers without the model."""
        return ModelNotReadyError.at(self.url, self.model, reason)


def check_timeout(timeout_s: float) -> None:
    """Refuse a timeout that is no positive number of seconds.

    Raises:
        ConfigError: Names the limits and the value.
    """
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise ConfigError(f"timeout_s must be above 0 and at most {MAX_TIMEOUT_S}, got {timeout_s}")
