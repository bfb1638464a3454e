"""The sequences of one beam width that are decoded together, and where their K/V lies.

The self-attention cache of a slot is a set of entries without order. `_visible[slot, beam]` marks
the entries of a beam's own ancestors. When beam b' continues beam b it takes over b's marks and
adds the entry that b wrote in this step: nothing in the cache is moved. An entry that no beam of
the slot sees any more is free for the next step, so a cache holds little more than the tokens of
one beam.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from kobart_runtime.admission import (
    ENTRIES_STEP,
    SOURCE_STEP,
    Room,
    grown_slots,
    largest_room,
    round_up,
)
from kobart_runtime.errors import EngineError, SlotStateError
from kobart_runtime.model_runner import ModelRunner, StepInputs
from kobart_runtime.request import Request
from kobart_runtime.search import Search


@dataclass(eq=False)
class Sequence:
    """A request in a slot."""

    request: Request
    search: Search


class DecodeBatch:
    """Slots 0..R-1 in use, in order of admission but for the last, which fills gaps."""

    def __init__(self, runner: ModelRunner, num_beams: int) -> None:
        self._runner = runner
        self._num_beams = num_beams
        self._cache = runner.new_cache(0, 0, 0)
        self._visible = np.zeros((0, num_beams, 0), np.int32)
        self.sequences: list[Sequence] = []  # slot -> sequence

    def admit(self, sequences: Mapping[int, Sequence], encoded: Any) -> None:
        """Give sequences the next slots, in one go: room is made, and K/V moved for it, once.

        Args:
            sequences: Row of `encoded` -> sequence.
            encoded: An encoder's result.
        """
        for sequence in sequences.values():
            num_beams = sequence.search.num_beams
            if num_beams != self._num_beams:
                raise SlotStateError(
                    f"a sequence of {num_beams} beams in a batch of {self._num_beams}"
                )
        longest = max(sequence.request.source_len for sequence in sequences.values())
        self._make_room(len(self.sequences) + len(sequences), self._num_beams, longest)
        for row, sequence in sequences.items():
            slot = len(self.sequences)
            self._cache.put(slot, encoded, row, sequence.request.source_len)
            self._visible[slot] = 0
            self.sequences.append(sequence)

    def largest_room(self, joining: list[Request]) -> Room:
        """What this batch's cache can grow to once these requests have joined."""
        cache = self._cache
        room = Room(cache.num_slots, cache.num_entries, cache.source_len)
        return largest_room(room, [s.request for s in self.sequences] + joining)

    def retire(self, sequence: Sequence) -> None:
        """Free a sequence's slot; the last slot moves into the gap.

        Whatever is raised, no sequence of this batch can go on, and this one may have left it.
        """
        slot = self.sequences.index(sequence)
        last = len(self.sequences) - 1
        if slot != last:
            self._cache.move(last, slot)
            self._visible[slot] = self._visible[last]
            self.sequences[slot] = self.sequences[last]
        self.sequences.pop()
        # A smaller cache lies beside the larger one for a moment: there may be no room for it.
        with suppress(MemoryError, EngineError):
            self._give_back_room()

    def step(self) -> None:
        """Decode one token for each beam of each sequence; a search that ends says so itself.

        Raises:
            EngineError: The engine failed: no sequence of this batch can go on.
        """
        num_used = len(self.sequences)
        visible = self._visible[:num_used]
        num_seen = int(visible.any(axis=1).sum(axis=1).max())
        self._make_room(num_used, num_seen + self._num_beams, 0)
        visible = self._visible[:num_used]
        # Entries that a beam sees sort last, stably: the first are the lowest free ones.
        new_entries = np.argsort(visible.any(axis=1), axis=1, kind="stable")[:, : self._num_beams]
        searches = [sequence.search for sequence in self.sequences]
        wanted = [search.prepare(self._runner.num_candidates) for search in searches]
        output = self._runner.decode_step(
            self._cache,
            StepInputs(
                decoder_input_ids=np.stack([search.input_ids for search in searches]),
                position_ids=np.array([[search.num_generated] for search in searches], np.int32),
                decoder_attention_mask=visible,
                new_entries=new_entries,
            ),
            want_logits=any(wanted),
        )
        for slot, search in enumerate(searches):
            parents = search.advance(
                output.candidate_logprobs[slot],
                output.candidate_ids[slot],
                None if output.logits is None else output.logits[slot],
            )
            if parents is not None:
                self._inherit(slot, parents, new_entries[slot])

    def _inherit(self, slot: int, parents: np.ndarray, new_entries: np.ndarray) -> None:
        visible = self._visible[slot, parents]
        visible[np.arange(self._num_beams), new_entries[parents]] = 1
        self._visible[slot] = visible

    def _make_room(self, num_slots: int, num_entries: int, source_len: int) -> None:
        cache = self._cache
        self._resize(
            grown_slots(cache.num_slots, num_slots),
            max(round_up(num_entries, ENTRIES_STEP), cache.num_entries),
            max(round_up(source_len, SOURCE_STEP), cache.source_len),
        )

    def _give_back_room(self) -> None:
        """Shrink what is more than twice too large; all of it once no sequence is left."""
        num_used = len(self.sequences)
        if num_used == 0:
            self._resize(0, 0, 0)
            return
        seen = np.flatnonzero(self._visible[:num_used].any(axis=(0, 1)))
        num_entries = round_up(int(seen[-1]) + 1 if len(seen) else 1, ENTRIES_STEP)
        longest = max(sequence.request.source_len for sequence in self.sequences)
        source_len = round_up(longest, SOURCE_STEP)
        cache = self._cache
        self._resize(
            cache.num_slots // 2 if 4 * num_used <= cache.num_slots else cache.num_slots,
            num_entries if 2 * num_entries <= cache.num_entries else cache.num_entries,
            source_len if 2 * source_len <= cache.source_len else cache.source_len,
        )

    def _resize(self, num_slots: int, num_entries: int, source_len: int) -> None:
        cache = self._cache
        if (num_slots, num_entries, source_len) == (
            cache.num_slots,
            cache.num_entries,
            cache.source_len,
        ):
            return
        num_used = len(self.sequences)
        # First: there may be no memory for it, and marks and cache must stay of one size.
        visible = np.zeros((num_slots, self._num_beams, num_entries), np.int32)
        width = min(num_entries, self._visible.shape[2])
        visible[:num_used, :, :width] = self._visible[:num_used, :, :width]
        cache.resize(num_used, num_slots, num_entries, source_len)
        self._visible = visible
