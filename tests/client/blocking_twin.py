"""The asyncio client behind the blocking client's methods, so that both pass the same tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from client import AsyncKobartClient, SummaryChunk


class BlockingTwin:
    """Runs each method to its end in an event loop of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncKobartClient(*args, **options)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *args, **options: self._run(method(*args, **options))

    def stream(self, *args: Any, **options: Any) -> Iterator[SummaryChunk]:
        return self._iterate(self._client.stream(*args, **options))

    def close(self) -> None:
        if not self._loop.is_closed():
            self._run(self._client.close())
            self._run(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _iterate(self, chunks: Any) -> Iterator[SummaryChunk]:
        try:
            while (chunk := self._run(_next(chunks))) is not None:
                yield chunk
        finally:
            self._run(chunks.aclose())

    def _run(self, awaitable: Any) -> Any:
        return self._loop.run_until_complete(awaitable)


async def _next(chunks: Any) -> SummaryChunk | None:
    return await anext(chunks, None)
