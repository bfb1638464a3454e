"""K/V in host memory: numpy arrays that an engine reads without a copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kobart_runtime.model_config import ModelShape


class HostKvCache:
    """See `model_runner.KvCache`. Arrays are [num_slots, H, C, D] and [num_slots, H, S, D].

    Cross-attention keys of an integer type are [num_slots, H, D, S], as an integer product reads
    them.

    Everything starts as zeros: entries that no beam sees still enter products with weight 0,
    and 0 * NaN is NaN.
    """

    def __init__(
        self,
        shape: ModelShape,
        dtype: type,
        num_slots: int,
        num_entries: int,
        source_len: int,
        cross_dtype: type | None = None,
    ) -> None:
        """Make room.

        Args:
            shape: The engines' dimensions.
            dtype: Floating type of the K/V.
            num_slots: Requests.
            num_entries: Self-attention entries of each slot.
            source_len: Source tokens of each slot.
            cross_dtype: Another type for cross-attention.
        """
        cross_dtype = cross_dtype or dtype
        self._heads = shape.num_heads
        self._head_dim = shape.head_dim
        num_tensors = 2 * shape.num_decoder_layers  # key and value of each layer
        entry_values = num_tensors * shape.num_heads * shape.head_dim
        self.entry_bytes = entry_values * np.dtype(dtype).itemsize
        self.source_bytes = entry_values * np.dtype(cross_dtype).itemsize
        self._turned = np.issubdtype(cross_dtype, np.integer)  # cross-attention keys
        self.self_kv: list[np.ndarray] = [
            np.zeros((0, self._heads, 0, self._head_dim), dtype)
        ] * num_tensors
        self.cross_kv: list[np.ndarray] = [
            np.zeros(self._cross_shape(tensor, 0, 0), cross_dtype) for tensor in range(num_tensors)
        ]
        self.encoder_attention_mask = np.zeros((0, 0), np.int32)
        self.num_slots = self.num_entries = self.source_len = 0
        self.resize(0, num_slots, num_entries, source_len)

    def resize(self, num_used: int, num_slots: int, num_entries: int, source_len: int) -> None:
        """Change the room, keeping what the first `num_used` slots hold and what still fits.

        Raises:
            MemoryError: Nothing has changed.
        """
        self_kv, cross_kv, mask = self.self_kv, self.cross_kv, self.encoder_attention_mask
        if (num_slots, num_entries) != (self.num_slots, self.num_entries):
            shape = (num_slots, self._heads, num_entries, self._head_dim)
            self_kv = [_resized(array, shape, num_used) for array in self_kv]
        if (num_slots, source_len) != (self.num_slots, self.source_len):
            cross_kv = [
                _resized(array, self._cross_shape(tensor, num_slots, source_len), num_used)
                for tensor, array in enumerate(cross_kv)
            ]
            mask = _resized(mask, (num_slots, source_len), num_used)
        self.self_kv, self.cross_kv, self.encoder_attention_mask = self_kv, cross_kv, mask
        self.num_slots, self.num_entries, self.source_len = num_slots, num_entries, source_len

    def put(self, slot: int, encoded: Sequence[np.ndarray], row: int, source_len: int) -> None:
        """Fill a slot from row `row` of the encoder's outputs, whose layout is the cache's own."""
        for tensor, (array, states) in enumerate(zip(self.cross_kv, encoded, strict=True)):
            if self._is_turned(tensor):
                array[slot, :, :, :source_len] = states[row, :, :, :source_len]
            else:
                array[slot, :, :source_len] = states[row, :, :source_len]
        self.encoder_attention_mask[slot] = 0
        self.encoder_attention_mask[slot, :source_len] = 1

    def move(self, source: int, target: int) -> None:
        """Copy one slot over another."""
        for array in (*self.self_kv, *self.cross_kv, self.encoder_attention_mask):
            array[target] = array[source]

    def write(self, new_entries: np.ndarray, present: Sequence[np.ndarray]) -> None:
        """Store one step's K/V, each float[R, H, W, D], at int64[R, W] entries."""
        slots = np.arange(new_entries.shape[0])[:, None]
        for array, states in zip(self.self_kv, present, strict=True):
            # Advanced indices around a slice put their axes first: [R, W, H, D].
            array[slots, :, new_entries] = states.transpose(0, 2, 1, 3)

    def _cross_shape(self, tensor: int, num_slots: int, source_len: int) -> tuple[int, ...]:
        if self._is_turned(tensor):
            return num_slots, self._heads, self._head_dim, source_len
        return num_slots, self._heads, source_len, self._head_dim

    def _is_turned(self, tensor: int) -> bool:
        """Whether it is [num_slots, H, D, S]: keys take turns with values."""
        return bool(self._turned and tensor % 2 == 0)


def _resized(array: np.ndarray, shape: tuple[int, ...], num_used: int) -> np.ndarray:
    """A zeroed array of `shape` with the overlap of the first `num_used` slots copied in."""
    resized = np.zeros(shape, array.dtype)
    kept = tuple(slice(min(old, new)) for old, new in zip(array.shape[1:], shape[1:], strict=True))
    resized[(slice(num_used), *kept)] = array[(slice(num_used), *kept)]
    return resized
