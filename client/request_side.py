"""The sending half of a stream: one message, and then open until the answer is complete.

Closing it at once would do, but tritonserver 2.51 has a race between a stream's cancellation
and the model's last answer, which now and then crashes it. Measured with a model that answers
a cancellation within 10 ms: once in 500 cancelled requests on half-closed streams, once in
4,000 to 7,500 on open ones, never if the model waits 50 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from queue import SimpleQueue
from typing import Any


class RequestSide:
    """For the blocking client: gRPC reads it on a thread of its own, which `close` ends."""

    def __init__(self, message: Any) -> None:
        self._messages: SimpleQueue[Any] = SimpleQueue()
        self._messages.put(message)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._messages.get, None)

    def close(self) -> None:
        """Tell the server that nothing follows; a second call does nothing."""
        self._messages.put(None)


class AsyncRequestSide:
    """For the asyncio client."""

    def __init__(self, message: Any) -> None:
        self._message = message
        self._closed = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[Any]:
        yield self._message
        await self._closed.wait()

    def close(self) -> None:
        """Tell the server that nothing follows; a second call does nothing."""
        self._closed.set()
