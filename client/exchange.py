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

GRACE_S = 0.5  # how much longer than the server a client waits
_FINAL = "triton_final_response"


class Exchange:
    """A request, the time it has left and what has come back so far."""

    def __init__(self, config: ClientConfig, message: Any, timeout_s: float) -> None:
        self.message = message  # ModelInferRequest
        # Have Triton tell the end of every answer, even where the model's last one is empty.
        self.message.parameters["triton_enable_empty_final_response"].bool_param = True
        self._config = config
        self._timeout_s = timeout_s
        self._deadline_s = time.monotonic() + timeout_s
        self._delays_s = config.retry.delays_s()
        self._responses: list[Response] = []
        self._is_complete = False
        self._error: KobartError | None = None

    def attempt(self) -> float:
        """Get the message ready to be sent, again perhaps.

        Returns:
            Seconds after which to give up. The server is told to answer a little earlier:
            its answer and our cancellation should not meet (see `client.request_side`).

        Raises:
            DeadlineExceededError: None are left.
        """
        remaining_s = self._remaining_s()
        if remaining_s <= 0:
            raise self._deadline_exceeded()
        self._error = None
        self.message.parameters["timeout"].int64_param = max(1, int(remaining_s * 1e6))
        return remaining_s + GRACE_S

    def receive(self, envelope: Any) -> SummaryChunk | None:
        """Take one ModelStreamInferResponse.

        Returns:
            What it adds; None if it only carries an error or Triton's final flag.
        """
        if envelope.error_message:
            self._error = self.error("", envelope.error_message)
            return None
        self._is_complete = envelope.infer_response.parameters[_FINAL].bool_param
        if not envelope.infer_response.outputs:
            return None
        response = read_response(envelope.infer_response)
        self._responses.append(response)
        return SummaryChunk(
            text=response.text,
            output_ids=response.output_ids,
            num_output_tokens=response.num_output_tokens,
            summary=self._summary() if response.finish_reason else None,
        )

    @property
    def is_complete(self) -> bool:
        """Whether nothing follows, so that the stream can be closed."""
        return self._is_complete or self._error is not None

    def finish(self) -> None:
        """Check, at the stream's end, that the whole summary came.

        Raises:
            KobartError: The server's error, or a ServerError if the stream just ended.
        """
        if self._error is not None:
            raise self._error
        if not (self._responses and self._responses[-1].finish_reason):
            raise ServerError(
                f"{self._config.url} ended the stream after {len(self._responses)} responses "
                "and before the last one: see the server's log"
            )

    def error(self, status: str, message: str | None) -> KobartError:
        """The typed error of a failed call, from its gRPC status name and message."""
        if status == DeadlineExceededError.code:
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
