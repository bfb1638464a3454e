"""The asyncio client: the twin of `client.sync_client`, which documents the methods in full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
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
from client.request_side import AsyncRequestSide
from client.results import Progress, Summary, SummaryChunk
from kobart_runtime.errors import KobartError


class AsyncKobartClient:
    """Summaries from a served KoBART, for one event loop: that of its first request.

    A cancelled task cancels its request on the server.
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
        """Make a client; arguments and errors are those of `KobartClient`."""
        self._config = ClientConfig(url=url, model=model, timeout_s=timeout_s, retry=retry)
        self._credentials = credentials
        # Made by the first request: they belong to the loop that is running then.
        self._channel: Any = None
        self._stub: Any = None
        self._closed = False

    async def __aenter__(self) -> AsyncKobartClient:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; a second call does nothing.

        What is still running is cancelled: its tasks see `asyncio.CancelledError`.
        """
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def summarize(
        self, text: str, *, timeout_s: float | None = None, **settings: float
    ) -> Summary:
        """Summarise one document."""
        begin = prepare(self._config, text, settings, stream=False, timeout_s=timeout_s)
        return await self._summarize(begin)

    def stream(
        self, text: str, *, timeout_s: float | None = None, **settings: float
    ) -> AsyncGenerator[SummaryChunk, None]:
        """Summarise one document piece by piece; leaving the loop early cancels the request.

        Python closes an abandoned async generator only when the loop next runs; wrap it in
        `contextlib.aclosing` to have the request cancelled before the next line.
        """
        begin = prepare(self._config, text, settings, stream=True, timeout_s=timeout_s)
        return self._chunks(begin)

    @overload
    async def summarize_many(
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
    async def summarize_many(
        self,
        texts: Sequence[str],
        *,
        concurrency: int = ...,
        on_progress: Progress | None = ...,
        return_errors: bool,
        timeout_s: float | None = ...,
        **settings: float,
    ) -> list[Summary | KobartError]: ...

    async def summarize_many(
        self,
        texts: Sequence[str],
        *,
        concurrency: int = 8,
        on_progress: Progress | None = None,
        return_errors: bool = False,
        timeout_s: float | None = None,
        **settings: float,
    ) -> Any:
        """Summarise documents, several at a time, in the documents' order."""
        begins = prepare_many(
            self._config, texts, settings, concurrency=concurrency, timeout_s=timeout_s
        )
        free = asyncio.Semaphore(concurrency)
        tasks = [asyncio.ensure_future(self._outcome(begin, free)) for begin in begins]
        try:
            for num_done, task in enumerate(asyncio.as_completed(tasks), start=1):
                if isinstance(outcome := await task, KobartError) and not return_errors:
                    raise outcome
                if on_progress is not None:
                    on_progress(num_done, len(tasks))
            return [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def is_ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> bool:
        """Whether the server answers and has the model loaded; never raises a KobartError."""
        try:
            await self.check_ready(timeout_s=timeout_s)
        except KobartError:
            return False
        return True

    async def check_ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Ask once whether requests can be sent."""
        request = service_pb2.ModelReadyRequest(name=self._config.model)
        try:
            answer = await self._connected().ModelReady(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._config.error(error.code().name, error.details()) from None
        if not answer.ready:
            raise self._config.not_ready("not ready")

    async def _outcome(self, begin: Begin, free: asyncio.Semaphore) -> Summary | KobartError:
        async with free:
            try:
                return await self._summarize(begin)
            except KobartError as error:
                return error

    async def _summarize(self, begin: Begin) -> Summary:
        last = [chunk async for chunk in self._chunks(begin)][-1]
        assert last.summary is not None  # Exchange.finish
        return last.summary

    async def _chunks(self, begin: Begin) -> AsyncGenerator[SummaryChunk, None]:
        exchange = begin()
        while True:
            try:
                # `async for` alone would leave an abandoned attempt to the garbage collector.
                async with aclosing(self._attempt(exchange)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except KobartError as error:
                await asyncio.sleep(exchange.backoff_s(error))

    async def _attempt(self, exchange: Exchange) -> AsyncGenerator[SummaryChunk, None]:
        service, timeout_s = self._connected(), exchange.attempt()
        requests = AsyncRequestSide(exchange.message)
        call = service.ModelStreamInfer(requests, timeout=timeout_s)
        try:
            async for response in call:
                chunk = exchange.receive(response)
                if exchange.is_complete:
                    requests.close()
                if chunk is not None:
                    yield chunk
        except grpc.RpcError as error:
            raise exchange.error(error.code().name, error.details()) from None
        finally:
            call.cancel()
            requests.close()
        exchange.finish()

    def _connected(self) -> Any:
        """The service's stub, on a channel opened now if there is none."""
        if self._closed:
            raise ClientClosedError(f"this client of {self._config.url} is closed: make a new one")
        if self._stub is None:
            self._channel = self._open()
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._stub

    def _open(self) -> Any:
        url = self._config.url
        if self._credentials is None:
            return grpc.aio.insecure_channel(url, options=CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(url, self._credentials, options=CHANNEL_OPTIONS)
