"""One request's way back: tokens become text, results become answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from kobart_runtime.detokenizer import StreamingDetokenizer
from kobart_runtime.errors import KobartError, RequestCancelledError, RequestError
from kobart_runtime.metrics import Metrics
from kobart_runtime.request import Request
from kobart_runtime.search import Generated
from kobart_runtime.tokenizer import Source, Tokenizer

_logger = logging.getLogger(__name__)

# Triton 2.51 can crash (SIGSEGV in its gRPC frontend) when a cancellation meets an answer: 2 to 14
# times in 15,000 for answers within 10 ms of the cancellation, never for those 50 ms later.
_CANCELLED_DELAY_S = 0.05


@dataclass(frozen=True)
class Answer:
    """One response of the front model; a streamed request gets several."""

    text: str  # the summary; when streaming, the new piece of it
    output_ids: tuple[int, ...]  # likewise
    num_input_tokens: int  # after truncation
    num_output_tokens: int  # all ids so far, of earlier chunks too
    truncated: bool
    finish_reason: str  # "stop" or "length"; "" on all chunks but the last


class Sink(Protocol):
    """Where the answers of one request go."""

    def send(self, answer: Answer, *, final: bool) -> None:
        """Send one response; after a final one comes nothing."""

    def fail(self, error: KobartError) -> None:
        """Send an error; after it comes nothing."""

    def is_cancelled(self) -> bool:
        """Whether the caller has gone away."""


class Conversation:
    """Listens to the loop and answers on the responder's thread.

    The loop's thread only hands over (`tell`): a slow caller or a long text does not hold up the
    next decode step.
    """

    request: Request  # set once both exist
    aborted_s = 0.0  # when `request.abort` was set, or was last seen to be None

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        sink: Sink,
        *,
        metrics: Metrics,
        tell: Callable[..., None],
    ) -> None:
        self.sink = sink
        self.on_closed: Callable[[], object] = lambda: None
        self._source = source
        self._tokenizer = tokenizer
        self._metrics = metrics
        self._tell = tell
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._is_open = True  # the last response has not been sent
        self._num_told = 0  # ids sent in chunks
        self._unsent_ids: list[int] = []  # ids whose text waits for the next token

    def on_tokens(self, ids: Sequence[int]) -> None:
        """See `request.Listener`."""
        self._tell(partial(self._answer, self._send_chunk, list(ids)))

    def on_finished(self, generated: Generated) -> None:
        """See `request.Listener`."""
        self._tell(partial(self._answer, self._send_final, generated))

    def on_failed(self, error: KobartError) -> None:
        """See `request.Listener`."""
        delay_s = _CANCELLED_DELAY_S if isinstance(error, RequestCancelledError) else 0.0
        self._tell(partial(self._answer, self._send_error, error), delay_s)

    def caller_has_gone(self) -> bool:
        """Whether the caller has cancelled; where that cannot be asked any more, it has."""
        try:
            return self.sink.is_cancelled()
        except Exception:
            _logger.exception("request %d: its caller cannot be asked", self.request.number)
            return True

    def fail_at_once(self, error: KobartError) -> None:
        """Answer with an error now, on the responder's thread; nothing if it was answered."""
        self._answer(self._send_error, error)

    def _answer(self, send: Callable[..., None], argument: object) -> None:
        """Send; where that fails, an error takes the place of all that was still to come."""
        if not self._is_open:
            return
        try:
            send(argument)
        except Exception as error:
            _logger.exception("request %d: a response could not be sent", self.request.number)
            self.request.abort = RequestError(f"a response could not be sent: {error!r}")
            self._answer(self._send_error, self.request.abort)

    def _send_chunk(self, ids: list[int]) -> None:
        self._unsent_ids += ids
        text = self._detokenize(lambda: self._detokenizer.push(ids))
        if text:
            self._send(text, tuple(self._unsent_ids), "", final=False)
            self._num_told += len(self._unsent_ids)
            self._unsent_ids = []

    def _send_final(self, generated: Generated) -> None:
        ids = generated.ids[self._num_told :]
        unseen = ids[len(self._unsent_ids) :]
        if self.request.stream:
            text = self._detokenize(
                lambda: self._detokenizer.push(unseen) + self._detokenizer.finish()
            )
        else:
            text = self._detokenize(lambda: self._tokenizer.decode(ids))
        self._send(text, ids, generated.finish_reason, final=True)
        self._close("requests_finished")

    def _send_error(self, error: KobartError) -> None:
        """The last attempt: a sink that does not take an error takes nothing."""
        counter = "requests_cancelled" if isinstance(error, RequestError) else "requests_failed"
        try:
            self.sink.fail(error)
        except Exception:
            _logger.exception("request %d: its error could not be sent", self.request.number)
            counter = "requests_failed"
        self._close(counter)

    def _close(self, counter: str) -> None:
        """Count how the request ended, after its last response: only then is that known."""
        self._is_open = False
        self._metrics.add(**{counter: 1})
        self.on_closed()

    def _send(self, text: str, ids: tuple[int, ...], reason: str, *, final: bool) -> None:
        answer = Answer(
            text=text,
            output_ids=ids,
            num_input_tokens=len(self._source.input_ids),
            num_output_tokens=self._num_told + len(ids),
            truncated=self._source.truncated,
            finish_reason=reason,
        )
        self.sink.send(answer, final=final)

    def _detokenize(self, work: Callable[[], str]) -> str:
        started = time.monotonic()
        text = work()
        self._metrics.add(detokenize_seconds=time.monotonic() - started)
        return text
