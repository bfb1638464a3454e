"""The forward pass, as the generation loop sees it: `encode` and `decode_step`.

A runner owns the engines and the K/V that lie between their calls, so that an implementation may
keep both on a device. Only small arrays cross this border, as numpy.

Shapes: R requests, W beams, S source length, C cache entries, V vocabulary, K candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class StepInputs:
    """One decode step of the first R slots of a cache."""

    decoder_input_ids: np.ndarray  # int32[R, W], the last token of each beam
    position_ids: np.ndarray  # int32[R, 1], tokens generated so far
    decoder_attention_mask: np.ndarray  # int32[R, W, C], 1 = this beam sees this entry
    new_entries: np.ndarray  # int64[R, W], where each beam's K/V goes; distinct in a row


@dataclass(frozen=True)
class StepOutput:
    """What a decode step gives back, in host memory that the caller may keep."""

    candidate_logprobs: np.ndarray  # float32[R, W, K], sorted from best to worst
    candidate_ids: np.ndarray  # int32[R, W, K]
    logits: np.ndarray | None  # float32[R, W, V] where they were asked for


class KvCache(Protocol):
    """Self-attention and cross-attention K/V of up to `num_slots` requests of one beam width.

    Slots in use are 0..R-1 without gaps; who uses the cache keeps it so by `move`.
    """

    num_slots: int
    num_entries: int  # C, self-attention entries of each slot
    source_len: int  # S, room for source tokens of each slot
    entry_bytes: int  # K/V of one cache entry of one slot, in all layers
    source_bytes: int  # K/V of one source token of one slot, in all layers

    def resize(self, num_used: int, num_slots: int, num_entries: int, source_len: int) -> None:
        """Change the room, keeping what the first `num_used` slots hold and what still fits."""

    def put(self, slot: int, encoded: Any, row: int, source_len: int) -> None:
        """Fill a slot with the cross-attention K/V of a row of an `encode` result."""

    def move(self, source: int, target: int) -> None:
        """Copy one slot over another."""


class ModelRunner(Protocol):
    """Implemented for ONNX Runtime, TensorRT and TorchScript; used by one thread."""

    num_candidates: int  # K
    vocab_size: int  # V

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Any:
        """Run the encoder on int32[R, S]; the result is for `KvCache.put` alone.

        Raises:
            EngineError: The engine refused the shapes or failed.
        """

    def new_cache(self, num_slots: int, num_entries: int, source_len: int) -> KvCache:
        """Room for K/V, zeroed."""

    def free_bytes(self) -> int:
        """Memory that is free at this moment where caches lie."""

    def give_back_freed(self) -> None:
        """Return to the machine what was freed and is still held; for idle moments."""

    def decode_step(self, cache: Any, inputs: StepInputs, *, want_logits: bool) -> StepOutput:
        """Run one step and write its K/V to `inputs.new_entries` of the cache.

        Raises:
            EngineError: The engine refused the shapes or failed; the cache is then undefined.
        """
