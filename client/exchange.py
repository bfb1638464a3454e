"""One request's life, without its I/O: both clients drive the same one.

attempt -> receive* -> finish
   ^          |
   '- backoff_s <- UNAVAILABLE
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from client.config import ClientConfig, check_timeout
from client.errors import ServerError
from client.protocol import Response, build_request, read_response
from client.results import Summary, SummaryChunk
from kobart_runtime.errors import (
    ConfigError,
    DeadlineExceededError,
    InvalidArgumentError,
    KobartError,
    OverloadedError,
)


class Exchange:
    """A request, the time it has left and what has come back so far."""

    def __init__(self, config: ClientConfig, message: Any, timeout_s: float) -> None:
        self.message = message  # ModelInferRequest
        self._config = config
        self._timeout_s = timeout_s
        self._deadline_s = time.monotonic() + timeout_s
        self._delays_s = config.retry.delays_s()
        self._responses: list[Response] = []
        self._finished = False

    def attempt(self) -> float:
        """Get the message ready to be sent, again perhaps.

        Returns:
            Seconds until the deadline; the server is told the same.

        Raises:
            DeadlineExceededError: None are left.
        """
        remaining_s = self._remaining_s()
        if remaining_s <= 0:
            raise self._deadline_exceeded()
        self.message.parameters["timeout"].int64_param = max(1, int(remaining_s * 1e6))
        return remaining_s

    def receive(self, envelope: Any) -> SummaryChunk | None:
        """Take one ModelStreamInferResponse.

        Returns:
            What it adds; None for an empty response that only carries Triton's final flag.

        Raises:
            KobartError: It carries an error.
        """
        if envelope.error_message:
            raise self.error("", envelope.error_message)
        if not envelope.infer_response.outputs:
            return None
        response = read_response(envelope.infer_response)
        self._responses.append(response)
        self._finished = bool(response.finish_reason)
        return SummaryChunk(
            text=response.text,
            output_ids=response.output_ids,
            num_output_tokens=response.num_output_tokens,
            summary=self._summary() if self._finished else None,
        )

    def finish(self) -> None:
        """Check, at the stream's end, that the whole summary came.

        Raises:
            ServerError: It did not.
        """
        if not self._finished:
            raise ServerError(
                f"{self._config.url} ended the stream after {len(self._responses)} responses "
                "and before the last one: see the server's log"
            )

    def error(self, status: str, message: str | None) -> KobartError:
        """The typed error of a failed call, from its gRPC status name and message."""
        if status == DeadlineExceededError.code or self._remaining_s() <= 0:
            return self._deadline_exceeded()
        return self._config.error(status, message)

    def backoff_s(self, error: KobartError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            KobartError: `error` itself, where another attempt is of no use.
        """
        if error.code != OverloadedError.code or self._responses:
            raise error
        delay_s = next(self._delays_s, None)
        if delay_s is None or delay_s >= self._remaining_s():
            raise error
        return delay_s

    def _remaining_s(self) -> float:
        return self._deadline_s - time.monotonic()

    def _deadline_exceeded(self) -> KobartError:
        return DeadlineExceededError(
            f"no summary within {self._timeout_s:g} s: allow a longer timeout_s, "
            "or ask for fewer new tokens or beams"
        )

    def _summary(self) -> Summary:
        last = self._responses[-1]
        return Summary(
            text="".join(response.text for response in self._responses),
            finish_reason=last.finish_reason,
            num_input_tokens=last.num_input_tokens,
            num_output_tokens=last.num_output_tokens,
            truncated=last.truncated,
            output_ids=tuple(i for response in self._responses for i in response.output_ids),
        )


Begin: TypeAlias = Callable[[], Exchange]  # starts the clock of a checked request


def prepare(
    config: ClientConfig,
    text: str,
    settings: Mapping[str, object],
    *,
    stream: bool,
    timeout_s: float | None,
) -> Begin:
    """Check and build a request.

    Raises:
        ConfigError: The timeout is no positive number of seconds.
        InvalidArgumentError: The text or a setting cannot be sent.
    """
    timeout_s = config.timeout_s if timeout_s is None else timeout_s
    check_timeout(timeout_s)
    message = build_request(config.model, text, settings, stream=stream)
    return partial(Exchange, config, message, timeout_s)


def prepare_many(
    config: ClientConfig,
    texts: Sequence[str],
    settings: Mapping[str, object],
    *,
    concurrency: int,
    timeout_s: float | None,
) -> list[Begin]:
    """Check and build all requests, so that a mistake is found before the first is sent.

    Raises:
        ConfigError: The timeout or the concurrency is out of range.
        InvalidArgumentError: A text or a setting cannot be sent.
    """
    if isinstance(texts, str):
        raise InvalidArgumentError("texts must be a list of documents, got one str: wrap it in []")
    if concurrency < 1:
        raise ConfigError(f"concurrency must be at least 1, got {concurrency}")
    return [prepare(config, text, settings, stream=False, timeout_s=timeout_s) for text in texts]
