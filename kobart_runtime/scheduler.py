"""Which waiting requests are encoded next, and together with which."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from kobart_runtime.errors import OverloadedError
from kobart_runtime.request import Request

# Padded source tokens encoded in one go. Small while others are being decoded, so that they do
# not wait long; larger when nothing else is to do.
TOKENS_BETWEEN_STEPS = 1024
TOKENS_WHEN_IDLE = 4096

# Sources are encoded together if the shorter is at least this share of the longer.
_LENGTH_RATIO = 0.75


class WaitingQueue:
    """Requests that have no slot yet, first come first served. Not thread-safe by itself."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._waiting: deque[Request] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._waiting)

    def check_room(self) -> None:
        """Refuse a further request if the queue is full.

        Raises:
            OverloadedError: At once, so that the caller may try elsewhere.
        """
        if len(self._waiting) >= self._max_size:
            raise OverloadedError(
                f"{len(self._waiting)} requests are waiting, limit {self._max_size}: try again "
                "later, or serve with a larger --max-queue-size"
            )

    def append(self, request: Request) -> None:
        """Add a request at the end, after `check_room`."""
        self._waiting.append(request)

    def put_back(self, requests: list[Request]) -> None:
        """Have requests that were taken be taken again, first of all and each alone."""
        for request in requests:
            request.alone = True
        self._waiting.extendleft(reversed(requests))

    def remove_aborted(self) -> list[Request]:
        """Take out the requests that are to be failed."""
        aborted = [request for request in self._waiting if request.abort is not None]
        if aborted:
            self._waiting = deque(r for r in self._waiting if r.abort is None)
        return aborted

    def take(
        self, num_slots: int, *, idle: bool, fits: Callable[[list[Request]], bool]
    ) -> list[Request]:
        """Take the requests to encode next: the oldest, and others of about its length.

        While the oldest does not fit nobody is taken: smaller ones would keep it waiting for ever.

        Args:
            num_slots: Free slots; at most so many are taken.
            idle: Whether nothing is being decoded.
            fits: Whether there is memory for these requests.
        """
        if not self._waiting or num_slots < 1 or not fits([self._waiting[0]]):
            return []
        oldest = self._waiting[0]
        if oldest.alone:
            return [self._waiting.popleft()]
        budget = TOKENS_WHEN_IDLE if idle else TOKENS_BETWEEN_STEPS
        batch, longest = [oldest], oldest.source_len
        for request in list(self._waiting)[1:]:
            if len(batch) == num_slots:
                break
            padded = max(longest, request.source_len)
            shortest = min(request.source_len, *(taken.source_len for taken in batch))
            is_near = padded * (len(batch) + 1) <= budget and shortest >= _LENGTH_RATIO * padded
            if not is_near or request.alone:
                continue
            if not fits([*batch, request]):
                break
            batch.append(request)
            longest = padded
        taken = set(map(id, batch))
        self._waiting = deque(r for r in self._waiting if id(r) not in taken)
        return batch


def pad_sources(requests: list[Request], pad_token_id: int) -> tuple[np.ndarray, np.ndarray]:
    """The encoder's inputs for a batch.

    Returns:
        `input_ids` and `attention_mask`, int32[R, S], padded on the right.
    """
    longest = max(request.source_len for request in requests)
    input_ids = np.full((len(requests), longest), pad_token_id, np.int32)
    attention_mask = np.zeros_like(input_ids)
    for row, request in enumerate(requests):
        input_ids[row, : request.source_len] = request.input_ids
        attention_mask[row, : request.source_len] = 1
    return input_ids, attention_mask
