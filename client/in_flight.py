"""The open calls of requests that belong together, so that all can be cancelled at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from client.request_side import RequestSide
from kobart_runtime.errors import RequestCancelledError


class InFlight:
    """Calls of one thread or many; once cancelled, later calls are cancelled at birth."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: set[Any] = set()
        self._cancelled = threading.Event()

    @contextmanager
    def track(self, call: Any, requests: RequestSide) -> Iterator[None]:
        """Know of a grpc.Call while the block runs, and cancel it if it is left early."""
        with self._lock:
            self._calls.add(call)
        if self._cancelled.is_set():
            call.cancel()
        try:
            yield
        finally:
            call.cancel()
            requests.close()
            with self._lock:
                self._calls.discard(call)

    def cancel(self) -> None:
        """Cancel every call; the server frees their slots."""
        self._cancelled.set()
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def sleep(self, delay_s: float) -> None:
        """Wait between two attempts.

        Raises:
            RequestCancelledError: `cancel` was called meanwhile.
        """
        if self._cancelled.wait(delay_s):
            raise RequestCancelledError("cancelled before the next attempt")
