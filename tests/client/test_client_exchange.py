"""Errors, retries and deadlines; no server."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from client import ModelNotReadyError, RetryPolicy, ServerError, ServerUnreachableError
from client.config import ClientConfig
from client.errors import error_from_status
from client.exchange import GRACE_S, Exchange, prepare
from kobart_runtime.errors import (
    ConfigError,
    DeadlineExceededError,
    InvalidArgumentError,
    KobartError,
    OverloadedError,
    RequestCancelledError,
)


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        ("INVALID_ARGUMENT", "INVALID_ARGUMENT: two\nlines", InvalidArgumentError),
        ("CANCELLED", "DEADLINE_EXCEEDED: 120 s", DeadlineExceededError),
        ("", "UNAVAILABLE: 256 wait", OverloadedError),
        ("UNAVAILABLE", "Socket closed", ServerUnreachableError),
        ("", "Request for unknown model: 'kobart' is not found", ModelNotReadyError),
        ("CANCELLED", "", RequestCancelledError),
        ("INVALID_ARGUMENT", "unexpected shape", InvalidArgumentError),
        ("RESOURCE_EXHAUSTED", "too large", ServerError),
        ("", "unexpected inference input", ServerError),
    ],
)
def test_each_status_has_its_error(status: str, message: str, error: type[KobartError]) -> None:
    assert type(error_from_status(status, message, url="h:1", model="kobart")) is error


def test_the_code_is_not_said_twice() -> None:
    error = error_from_status("INTERNAL", "INTERNAL: boom", url="h:1", model="kobart")
    assert error.status_message == "INTERNAL: boom"


def test_backoff_doubles_up_to_its_limit() -> None:
    policy = RetryPolicy(max_attempts=6, initial_backoff_s=1.0, max_backoff_s=5.0)
    for delay_s, upper in zip(policy.delays_s(), [1, 2, 4, 5, 5], strict=True):
        assert upper / 2 <= delay_s <= upper


def exchange(timeout_s: float = 60.0, max_attempts: int = 3) -> Exchange:
    config = ClientConfig(retry=RetryPolicy(max_attempts=max_attempts))
    return prepare(config, "x", {}, stream=False, timeout_s=timeout_s)()


@pytest.mark.parametrize(
    "error_type", [OverloadedError, ModelNotReadyError, ServerUnreachableError]
)
def test_unavailable_is_retried_until_attempts_run_out(error_type: type[KobartError]) -> None:
    request, error = exchange(max_attempts=3), error_type("busy")
    assert request.backoff_s(error) < request.backoff_s(error) * 2
    with pytest.raises(error_type, match="busy"):
        request.backoff_s(error)


@pytest.mark.parametrize(
    "error",
    [InvalidArgumentError("a"), DeadlineExceededError("b"), ServerError("c")],
    ids=["invalid", "deadline", "internal"],
)
def test_nothing_else_is_retried(error: KobartError) -> None:
    with pytest.raises(type(error)):
        exchange().backoff_s(error)


def test_no_attempt_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    clock = SimpleNamespace(monotonic=lambda: now_s)
    monkeypatch.setattr("client.exchange.time", clock)
    request = exchange(timeout_s=0.01)
    now_s += 0.004
    assert request.attempt() - GRACE_S == pytest.approx(0.006)
    assert request.message.parameters["timeout"].int64_param == pytest.approx(6000, abs=1)
    now_s += 0.006
    with pytest.raises(DeadlineExceededError, match=r"no summary within 0\.01 s"):
        request.attempt()


@pytest.mark.parametrize(
    "url", ["localhost", "http://localhost:8001", "localhost:8001/v2", ":8001", "host:port", ""]
)
def test_wrong_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"url must be HOST:PORT .*localhost:8001"):
        ClientConfig(url=url)


def test_an_ipv6_url_is_fine() -> None:
    assert ClientConfig(url="[::1]:8001").url == "[::1]:8001"


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_wrong_timeouts_are_refused(timeout_s: float) -> None:
    with pytest.raises(ConfigError, match="timeout_s must be above 0"):
        ClientConfig(timeout_s=timeout_s)
