"""All batches that are being decoded: one for each beam width, and one for each lone request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from kobart_runtime.admission import Room, largest_room
from kobart_runtime.decode_batch import DecodeBatch, Sequence
from kobart_runtime.model_runner import ModelRunner
from kobart_runtime.request import Request

# The beam width, and the number of a request that has no company.
Key: TypeAlias = tuple[int, int | None]


class DecodeBatches:
    """Batches in order of their first admission."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self._batches: dict[Key, DecodeBatch] = {}

    def __iter__(self) -> Iterator[DecodeBatch]:
        return iter(list(self._batches.values()))  # they come and go during an iteration

    def newcomers_first(self) -> list[DecodeBatch]:
        """All of them, first those in which a request has no token yet."""
        return sorted(self, key=lambda batch: all(s.request.has_begun for s in batch.sequences))

    @property
    def num_sequences(self) -> int:
        """Requests in slots."""
        return sum(len(batch.sequences) for batch in self._batches.values())

    @property
    def requests(self) -> list[Request]:
        """Those in slots."""
        return [sequence.request for batch in self for sequence in batch.sequences]

    def admit(self, sequences: Mapping[int, Sequence], encoded: Any) -> None:
        """Give sequences slots in the batches that they belong to.

        Args:
            sequences: Row of `encoded` -> sequence.
            encoded: An encoder's result.
        """
        groups: dict[Key, dict[int, Sequence]] = {}
        for row, sequence in sequences.items():
            groups.setdefault(_key(sequence.request), {})[row] = sequence
        for key, group in groups.items():
            batch = self._batches.get(key) or DecodeBatch(self._runner, num_beams=key[0])
            try:
                batch.admit(group, encoded)
            finally:
                if batch.sequences:  # an empty one would keep its cache for ever
                    self._batches[key] = batch

    def retire(self, batch: DecodeBatch, sequence: Sequence) -> None:
        """Free a sequence's slot."""
        batch.retire(sequence)
        if not batch.sequences:
            self.drop(batch)

    def drop(self, batch: DecodeBatch) -> list[Request]:
        """Forget a batch and its cache; returns the requests that were in it."""
        self._batches = {key: one for key, one in self._batches.items() if one is not batch}
        return [sequence.request for sequence in batch.sequences]

    def drop_all(self) -> None:
        """Forget every batch and its cache."""
        self._batches = {}

    def rooms(self, joining: list[Request]) -> list[Room]:
        """What the caches can grow to once these requests have joined."""
        groups: dict[Key, list[Request]] = {key: [] for key in self._batches}
        for request in joining:
            groups.setdefault(_key(request), []).append(request)
        return [
            self._batches[key].largest_room(group)
            if key in self._batches
            else largest_room(Room(), group)
            for key, group in groups.items()
        ]


def _key(request: Request) -> Key:
    return request.settings.num_beams, request.number if request.alone else None
