"""Who may be decoded together: what the K/V of requests can come to, and the limit of it.

A request's tokens are known before it is admitted, at most: its source, and for each beam as many
new tokens as it may get. What they take in memory follows from how `DecodeBatch` lays caches out:
every slot of a batch is as long as the longest needs it, and lengths are rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kobart_runtime.errors import InvalidArgumentError
from kobart_runtime.request import Request

ENTRIES_STEP = 32  # caches grow and shrink by multiples of these: static shapes for a while,
SOURCE_STEP = 64  # at little waste
MEBIBYTE = 1 << 20


class Room(NamedTuple):
    """The size of one batch's cache."""

    num_slots: int = 0
    num_entries: int = 0
    source_len: int = 0


def grown_slots(num_slots: int, num_needed: int) -> int:
    """Slots of a cache that makes room for so many: none more, or at least twice as many."""
    return num_slots if num_needed <= num_slots else max(num_needed, 2 * num_slots)


def largest_room(room: Room, requests: Sequence[Request]) -> Room:
    """What a cache of `room` can grow to while it holds these requests and no others.

    In the worst case beams share no ancestor but the first, so each has entries of its own.
    """
    entries = max((r.settings.num_beams * r.settings.max_new_tokens for r in requests), default=0)
    source_len = max((r.source_len for r in requests), default=0)
    return Room(
        grown_slots(room.num_slots, len(requests)),
        max(room.num_entries, round_up(entries, ENTRIES_STEP)),
        max(room.source_len, round_up(source_len, SOURCE_STEP)),
    )


@dataclass(frozen=True)
class CacheBudget:
    """The memory that all caches together may take.

    It does not hold the encoder's outputs of the requests that join, nor the copy of a cache that
    lies beside it for a moment when it grows: leave room for them.
    """

    entry_bytes: int  # K/V of one cache entry of one slot
    source_bytes: int  # K/V of one source token of one slot
    max_bytes: int

    def bytes_of(self, rooms: Sequence[Room]) -> int:
        """Memory of caches of these sizes."""
        return sum(
            room.num_slots
            * (room.num_entries * self.entry_bytes + room.source_len * self.source_bytes)
            for room in rooms
        )

    def allows(self, rooms: Sequence[Room]) -> bool:
        """Whether caches of these sizes may exist at once."""
        return self.bytes_of(rooms) <= self.max_bytes

    def check(self, request: Request) -> None:
        """Refuse a request that would not fit even if it were alone.

        Raises:
            InvalidArgumentError: Names what it asks for, the limit and the remedy.
        """
        room = largest_room(Room(), [request])
        if not self.allows([room]):
            settings = request.settings
            raise InvalidArgumentError(
                f"{request.source_len} source tokens and {settings.num_beams} beams of "
                f"{settings.max_new_tokens} new tokens take up to "
                f"{self.bytes_of([room]) / MEBIBYTE:.1f} MiB of keys and values, limit "
                f"{self.max_bytes / MEBIBYTE:.1f}: ask for fewer beams or new tokens, shorten the "
                "text, or serve with a larger --max-cache-mib"
            )


def round_up(value: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-value // step) * step
