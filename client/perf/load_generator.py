"""A load generator of our own, in asyncio: an independent witness of perf_analyzer's figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from client.async_client import AsyncKobartClient
from client.config import RetryPolicy
from client.perf.arrivals import poisson_pauses_s
from client.perf.options import Concurrency, RequestRate
from client.perf.records import Chunk, RequestRecord
from kobart_runtime.errors import KobartError

_NO_RETRY = RetryPolicy(max_attempts=1)  # a retried request would hide its first failure


@dataclass(frozen=True, kw_only=True)
class LoadGenerator:
    """Sends documents in turn to one front model."""

    url: str
    model: str
    documents: Sequence[str]
    settings: dict[str, float]
    stream: bool = True
    timeout_s: float = 120.0

    def measure(
        self, load: Concurrency | RequestRate, *, num_requests: int, num_warmup: int
    ) -> list[RequestRecord]:
        """See `client.perf.driver.Driver`."""
        count = num_requests + num_warmup
        if isinstance(load, Concurrency):
            records = self.at_concurrency(load.start, count)
        else:
            records = self.at_rate(load.start, count, poisson=load.distribution == "poisson")
        return sorted(records, key=lambda record: record.start_s)[num_warmup:]

    def at_concurrency(self, concurrency: int, num_requests: int) -> list[RequestRecord]:
        """Keep that many requests in flight until enough are sent."""
        return asyncio.run(self._closed_loop(concurrency, num_requests))

    def at_rate(
        self, requests_per_s: float, num_requests: int, *, poisson: bool = True
    ) -> list[RequestRecord]:
        """Send at a rate, whether the server keeps up or not."""
        if poisson:
            pauses = poisson_pauses_s(requests_per_s, num_requests)
        else:
            pauses = [1 / requests_per_s] * num_requests
        return asyncio.run(self._open_loop(pauses))

    async def _closed_loop(self, concurrency: int, num_requests: int) -> list[RequestRecord]:
        numbers = iter(range(num_requests))
        records: list[RequestRecord] = []

        async def worker(client: AsyncKobartClient) -> None:
            for number in numbers:
                records.append(await self._request(client, number))

        async with self._client() as client:
            await asyncio.gather(*(worker(client) for _ in range(concurrency)))
        return records

    async def _open_loop(self, pauses_s: Sequence[float]) -> list[RequestRecord]:
        async with self._client() as client:
            tasks = [
                asyncio.create_task(self._request(client, number))
                async for number in _ticks(pauses_s)
            ]
            return await asyncio.gather(*tasks)

    async def _request(self, client: AsyncKobartClient, number: int) -> RequestRecord:
        text = self.documents[number % len(self.documents)]
        start_s = time.monotonic()
        chunks: list[Chunk] = []
        try:
            async for num_tokens in self._token_counts(client, text):
                chunks.append(Chunk(time_s=time.monotonic(), num_tokens=num_tokens))
        except KobartError as error:
            return RequestRecord(start_s=start_s, chunks=(), error=error.status_message)
        return RequestRecord(start_s=start_s, chunks=tuple(chunks))

    async def _token_counts(self, client: AsyncKobartClient, text: str) -> AsyncIterator[int]:
        """Tokens so far, at each response."""
        if not self.stream:
            yield (await client.summarize(text, **self.settings)).num_output_tokens
            return
        async with aclosing(client.stream(text, **self.settings)) as chunks:
            async for chunk in chunks:
                yield chunk.num_output_tokens

    def _client(self) -> AsyncKobartClient:
        return AsyncKobartClient(
            self.url, model=self.model, timeout_s=self.timeout_s, retry=_NO_RETRY
        )


async def _ticks(pauses_s: Sequence[float]) -> AsyncIterator[int]:
    """Count up, each number at its time; a late one does not make the later ones late."""
    due_s = time.monotonic()
    for number, pause_s in enumerate(pauses_s):
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        yield number
        due_s += pause_s
