"""Errors that only a caller sees, and how a gRPC status becomes a typed error.

    KobartError
    ├── ServerUnreachableError   nothing answers at the URL
    ├── ModelNotReadyError       the server answers, but the model is not loaded
    ├── ServerError              the server failed on a request
    └── ClientClosedError        this client was closed

Errors that the front model itself reports arrive as `kobart_runtime.errors` classes:
InvalidArgumentError, OverloadedError, RequestCancelledError, DeadlineExceededError.
"""

from __future__ import annotations

import re

from kobart_runtime.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    KobartError,
    OverloadedError,
    RequestCancelledError,
)


class ServerUnreachableError(KobartError):
    """Nothing that speaks Triton's gRPC answers at the URL, or the connection broke."""

    code = "UNAVAILABLE"


class ModelNotReadyError(KobartError):
    """The server has no such model, or is (re)loading it."""

    code = "UNAVAILABLE"

    @classmethod
    def at(cls, url: str, model: str, reason: str) -> ModelNotReadyError:
        """The error of one model at one server, with what Triton says of it."""
        return cls(
            f"model {model!r} is not loaded at {url} ({reason}): load it, or name another model"
        )


class ServerError(KobartError):
    """The server failed on this request, or its answer is not the front model's."""


class ClientClosedError(KobartError):
    """The client was closed before or while it was used."""

    code = "CANCELLED"


_BY_CODE: dict[str, type[KobartError]] = {
    error.code: error
    for error in (
        InvalidArgumentError,
        OverloadedError,
        RequestCancelledError,
        DeadlineExceededError,
        ServerError,
    )
}
_PREFIXED = re.compile(rf"({'|'.join(_BY_CODE)}): (.*)", re.DOTALL)


def error_from_status(status: str, message: str, *, url: str, model: str) -> KobartError:
    """The typed error of a failed call.

    The front model's own errors begin with their code; whatever does not comes from Triton
    or from gRPC itself.

    Args:
        status: Name of the gRPC status; empty where Triton gives a message and no status.
        message: The message that came with it.
        url: Where the call went.
        model: The model that was called.
    """
    if match := _PREFIXED.fullmatch(message):
        return _BY_CODE[match[1]](match[2])
    if "unknown model" in message:
        return ModelNotReadyError.at(url, model, message)
    if status == OverloadedError.code:
        return ServerUnreachableError(
            f"no Triton gRPC server answers at {url} ({message}): start one with kobart-serve, "
            "or correct the URL; the gRPC port is usually 8001"
        )
    if status in _BY_CODE:
        return _BY_CODE[status](message)
    return ServerError(f"{message} ({status})" if status else message)
