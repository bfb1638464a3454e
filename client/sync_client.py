"""The blocking client. All that does no I/O is shared with its asyncio twin.

Requests share one gRPC channel, each on a stream of its own. `tritonclient`'s client objects
carry one stream each: a pool of them costs 1.5 times as much a request, one per request twice.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import Any, Literal, overload

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from client.config import (
    CHANNEL_OPTIONS,
    DEFAULT_RETRY,
    READY_TIMEOUT_S,
    ClientConfig,
    RetryPolicy,
)
from client.errors import ClientClosedError
from client.exchange import Begin, Exchange, prepare, prepare_many
from client.in_flight import InFlight
from client.request_side import RequestSide
from client.results import Progress, Summary, SummaryChunk
from kobart_runtime.errors import KobartError


class KobartClient:
    """Summaries from a served KoBART; any number of threads may share one client.

    Every setting that is not given is the checkpoint's own. Use it as a context manager, or
    call `close`.
    """

    def __init__(
        self,
        url: str = ClientConfig.url,
        *,
        model: str = ClientConfig.model,
        timeout_s: float = ClientConfig.timeout_s,
        retry: RetryPolicy = DEFAULT_RETRY,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            url: host:port of Triton's gRPC service.
            model: Name of the front model.
            timeout_s: Default for a request, its retries included.
            retry: What to do about UNAVAILABLE.
            credentials: For TLS; None = plain text.

        Raises:
            ConfigError: An argument is out of range.
        """
        self._config = ClientConfig(url=url, model=model, timeout_s=timeout_s, retry=retry)
        self._channel = (
            grpc.insecure_channel(url, options=CHANNEL_OPTIONS)
            if credentials is None
            else grpc.secure_channel(url, credentials, options=CHANNEL_OPTIONS)
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._closed = False

    def __enter__(self) -> KobartClient:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and cancel what is still running; a second call does nothing."""
        self._closed = True
        self._channel.close()

    def summarize(self, text: str, *, timeout_s: float | None = None, **settings: float) -> Summary:
        """Summarise one document.

        Args:
            text: The document.
            timeout_s: None = the client's.
            settings: Any of `GenerationSettings`: num_beams, max_new_tokens, ...

        Raises:
            KobartError: The class says what failed; see `client.errors`.
        """
        begin = prepare(self._config, text, settings, stream=False, timeout_s=timeout_s)
        return self._summarize(begin, InFlight())

    def stream(
        self, text: str, *, timeout_s: float | None = None, **settings: float
    ) -> Generator[SummaryChunk, None, None]:
        """Summarise one document piece by piece; leaving the loop early cancels the request.

        Args and errors are those of `summarize`; the last chunk carries the whole `Summary`.
        """
        begin = prepare(self._config, text, settings, stream=True, timeout_s=timeout_s)
        return self._chunks(begin, InFlight())

    @overload
    def summarize_many(
        self,
        texts: Sequence[str],
        *,
        concurrency: int = ...,
        on_progress: Progress | None = ...,
        return_errors: Literal[False] = ...,
        timeout_s: float | None = ...,
        **settings: float,
    ) -> list[Summary]: ...

    @overload
    def summarize_many(
        self,
        texts: Sequence[str],
        *,
        concurrency: int = ...,
        on_progress: Progress | None = ...,
        return_errors: bool,
        timeout_s: float | None = ...,
        **settings: float,
    ) -> list[Summary | KobartError]: ...

    def summarize_many(
        self,
        texts: Sequence[str],
        *,
        concurrency: int = 8,
        on_progress: Progress | None = None,
        return_errors: bool = False,
        timeout_s: float | None = None,
        **settings: float,
    ) -> Any:
        """Summarise documents, several at a time.

        Args:
            texts: The documents.
            concurrency: Requests in flight at once.
            on_progress: Called here, with the documents done and their total, after each.
            return_errors: Put the error of a document in its place. By default the first
                error is raised at once and the requests in flight are cancelled.
            timeout_s: Of each document, from the moment it is sent; None = the client's.
            settings: As for `summarize`, the same for all.

        Returns:
            One summary a document, in the documents' order.
        """
        begins = prepare_many(
            self._config, texts, settings, concurrency=concurrency, timeout_s=timeout_s
        )
        in_flight = InFlight()
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="kobart-client")
        futures = [pool.submit(self._outcome, begin, in_flight) for begin in begins]
        try:
            for num_done, future in enumerate(as_completed(futures), start=1):
                if not return_errors and isinstance(outcome := future.result(), KobartError):
                    raise outcome
                if on_progress is not None:
                    on_progress(num_done, len(futures))
            return [future.result() for future in futures]
        finally:
            in_flight.cancel()
            pool.shutdown(cancel_futures=True)

    def is_ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> bool:
        """Whether the server answers and has the model loaded; never raises a KobartError."""
        try:
            self.check_ready(timeout_s=timeout_s)
        except KobartError:
            return False
        return True

    def check_ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Ask once whether requests can be sent.

        Raises:
            ServerUnreachableError: Nothing answers.
            ModelNotReadyError: The server answers, but the model is not loaded.
        """
        self._require_open()
        request = service_pb2.ModelReadyRequest(name=self._config.model)
        try:
            answer = self._stub.ModelReady(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._config.error(error.code().name, error.details()) from None
        if not answer.ready:
            raise self._config.not_ready("not ready")

    def _outcome(self, begin: Begin, in_flight: InFlight) -> Summary | KobartError:
        try:
            return self._summarize(begin, in_flight)
        except KobartError as error:
            return error

    def _summarize(self, begin: Begin, in_flight: InFlight) -> Summary:
        *_, last = self._chunks(begin, in_flight)
        assert last.summary is not None  # Exchange.finish
        return last.summary

    def _chunks(self, begin: Begin, in_flight: InFlight) -> Generator[SummaryChunk, None, None]:
        exchange = begin()
        while True:
            try:
                yield from self._attempt(exchange, in_flight)
                return
            except KobartError as error:
                in_flight.sleep(exchange.backoff_s(error))

    def _attempt(
        self, exchange: Exchange, in_flight: InFlight
    ) -> Generator[SummaryChunk, None, None]:
        self._require_open()
        timeout_s = exchange.attempt()
        requests = RequestSide(exchange.message)
        call = self._stub.ModelStreamInfer(iter(requests), timeout=timeout_s)
        with in_flight.track(call, requests):
            try:
                for response in call:
                    chunk = exchange.receive(response)
                    if exchange.is_complete:
                        requests.close()
                    if chunk is not None:
                        yield chunk
            except grpc.RpcError as error:
                self._require_open()
                raise exchange.error(error.code().name, error.details()) from None
        exchange.finish()

    def _require_open(self) -> None:
        if self._closed:
            raise ClientClosedError(f"this client of {self._config.url} is closed: make a new one")
