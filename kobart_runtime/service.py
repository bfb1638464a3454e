"""Text in, summary out: what stands between Triton's requests and the generation loop.

    submit: validate -> tokenize -> queue          on the caller's thread
    the loop: encode, decode, select               on the loop's thread
    answers: detokenize -> send                    on the responder's thread

The responder also looks after requests on their way: it notices cancelled and overdue ones, and
answers them itself should the loop fail to. A request that `submit` accepts is answered exactly
once, and counted as failed if its caller takes no answer; one that it refuses is not answered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from kobart_runtime.conversation import Answer, Conversation, Sink
from kobart_runtime.errors import (
    DeadlineExceededError,
    InputTooLongError,
    InvalidArgumentError,
    KobartError,
    RequestCancelledError,
    RequestError,
)
from kobart_runtime.generation_loop import GenerationLoop
from kobart_runtime.host_cpus import HostCpus
from kobart_runtime.metrics import Metrics
from kobart_runtime.model_config import (
    MANIFEST_NAME,
    TOKENIZER_FILE,
    ModelConfig,
    verify_artefacts,
)
from kobart_runtime.model_runner import ModelRunner
from kobart_runtime.request import Request
from kobart_runtime.responder import Responder
from kobart_runtime.runners import open_runner
from kobart_runtime.serving_options import ServingOptions
from kobart_runtime.tokenizer import Tokenizer

__all__ = ["Answer", "Call", "Sink", "SummarizationService"]

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05  # how often cancelled and overdue requests are looked for
_REFUSAL_DELAY_S = 0.02
# How long the loop may take to fail a request that it was told to; a step takes less.
_LOOP_PATIENCE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request as it arrives."""

    text: bytes  # UTF-8
    settings: Mapping[str, object] = field(default_factory=dict)  # those that were given
    stream: bool = False
    timeout_s: float | None = None  # the caller's own; the build's limit holds as well


class SummarizationService:
    """One model, from load to unload."""

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        runner: ModelRunner,
        *,
        num_sharing: int = 1,
    ) -> None:
        """Start its threads.

        Args:
            config: The build's, with the limits in force.
            tokenizer: The build's.
            runner: Its engines, opened.
            num_sharing: Models that share the free memory, this one among them.
        """
        self.config = config
        self.metrics = Metrics()
        self._tokenizer = tokenizer
        self._loop = GenerationLoop(runner, config, self.metrics, num_sharing)
        self._open: dict[int, Conversation] = {}  # request number -> not yet answered
        self._responder = Responder(self._look_after_open, _POLL_SECONDS)

    @classmethod
    def open(cls, folder: Path, options: ServingOptions | None = None) -> SummarizationService:
        """Load a build's front model from its version folder, and log the limits in force.

        Args:
            folder: The version folder.
            options: What differs from the build on this server.

        Raises:
            BuildError: The manifest or a file is missing or not what was built.
            ConfigError: The build's engines cannot do what an option asks for.
            EngineError: An engine cannot be loaded.
        """
        options, cpus = options or ServingOptions(), HostCpus.read()
        config = ModelConfig.from_manifest(folder / MANIFEST_NAME)
        verify_artefacts(folder, config.artefacts, [*config.engines.files, TOKENIZER_FILE])
        tokenizer = Tokenizer(
            folder / TOKENIZER_FILE,
            config.tokenizer,
            config.ids,
            max_source_length=config.limits.max_source_length,
            vocab_size=config.shape.vocab_size,
        )
        in_force = replace(config, limits=options.limits_for(config))
        runner = open_runner(folder, config.engines, options.num_threads(cpus))
        service = cls(in_force, tokenizer, runner, num_sharing=options.num_models or 1)
        max_cache_bytes = service._loop.max_cache_bytes
        _logger.info("%s: %s", config.name, options.describe(config, cpus, max_cache_bytes))
        return service

    def submit(self, call: Call, sink: Sink) -> None:
        """Accept a request; everything else is told to `sink`, on the responder's thread.

        Raises:
            RequestError: The request is refused; `sink` is not used.
        """
        self.metrics.add(requests_received=1)
        try:
            self._loop.check_room()
            conversation = self._converse(call, sink)
            self._open[conversation.request.number] = conversation
            try:
                self._loop.submit(conversation.request)
            except BaseException:
                self._open.pop(conversation.request.number, None)
                raise
        except Exception as error:
            self._count_refused(error)
            raise

    def refuse(self, error: KobartError, sink: Sink) -> None:
        """Answer a request that was not accepted, in a moment.

        Triton 2.51 can crash (SIGSEGV in its gRPC frontend) on an error that a model sends before
        `execute` has returned: 15 times in 2,980 requests with the header `triton_grpc_error`,
        never in 3,000 when it was sent 5 ms later.
        """
        self._responder.put(partial(sink.fail, error), delay_s=_REFUSAL_DELAY_S)

    def count_unread(self, error: Exception) -> None:
        """Count a request that cannot be read as a call and therefore is not submitted."""
        self.metrics.add(requests_received=1)
        self._count_refused(error)

    def close(self) -> None:
        """Answer what was accepted, then stop both threads."""
        self._loop.close()
        self._responder.close()

    @property
    def num_open(self) -> int:
        """Requests accepted and not yet answered."""
        return len(self._open)

    def _converse(self, call: Call, sink: Sink) -> Conversation:
        arrived_s = time.monotonic()
        limits = self.config.limits
        if len(call.text) > limits.max_input_bytes:
            raise InputTooLongError(
                f"text_input has {len(call.text)} bytes, limit {limits.max_input_bytes}: shorten "
                "it, or serve with a larger --max-input-bytes"
            )
        settings = self.config.defaults.override(call.settings)
        settings.check(limits)
        started = time.monotonic()
        source = self._tokenizer.encode(_decode_utf8(call.text))
        self.metrics.add(tokenize_seconds=time.monotonic() - started)
        conversation = Conversation(
            source, self._tokenizer, sink, metrics=self.metrics, tell=self._responder.put
        )
        timeout_s = min(limits.max_request_seconds, call.timeout_s or limits.max_request_seconds)
        conversation.request = Request(
            source.input_ids,
            settings,
            conversation,
            stream=call.stream,
            timeout_s=timeout_s,
            arrived_s=arrived_s,
        )
        conversation.on_closed = lambda: self._open.pop(conversation.request.number, None)
        return conversation

    def _count_refused(self, error: Exception) -> None:
        refused = isinstance(error, RequestError)
        self.metrics.add(**{"requests_rejected" if refused else "requests_failed": 1})

    def _look_after_open(self) -> None:
        """Mark cancelled and overdue requests; the loop fails them between two steps."""
        for conversation in list(self._open.values()):
            request = conversation.request
            if request.abort is None:
                request.abort = _reason_to_abort(conversation)
                conversation.aborted_s = time.monotonic()
            elif time.monotonic() - conversation.aborted_s > _LOOP_PATIENCE_S:
                conversation.fail_at_once(request.abort)


def _reason_to_abort(conversation: Conversation) -> RequestError | None:
    request = conversation.request
    if request.seconds_left < 0:
        return DeadlineExceededError(
            f"the request took longer than {request.timeout_s:.3g} s: ask for fewer tokens or "
            "beams, or allow more time"
        )
    if conversation.caller_has_gone():
        return RequestCancelledError("the caller cancelled the request")
    return None


def _decode_utf8(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(
            f"text_input is not valid UTF-8 at byte {error.start}: send well-formed text"
        ) from error
