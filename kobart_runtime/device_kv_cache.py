"""K/V in device memory; a decode step's entries are put in place by copies on the device.

Shapes: T tensors (key and value of each layer), R slots, H heads, L entries or source tokens,
D head dim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

import numpy as np

from kobart_runtime.cuda_device import Box, CudaDevice, DeviceBuffer, Graph
from kobart_runtime.model_config import ModelShape

_INT32_BYTES = 4
_ALIGNMENT = 256  # bytes; what cudaMalloc gives, and TensorRT may assume of every tensor

BlockShape = tuple[int, int, int, int, int]  # T, R, H, L, D


@dataclass(frozen=True, eq=False)
class KvBlock:
    """T tensors [R, H, L, D] that lie at equal distances in one buffer.

    So entries of a slot are a box of bytes, T planes of H rows, and one copy moves them for all
    layers.
    """

    device: CudaDevice
    buffer: DeviceBuffer
    shape: BlockShape
    itemsize: int

    @classmethod
    def zeros(cls, device: CudaDevice, shape: BlockShape, itemsize: int) -> KvBlock:
        """A block of its own memory."""
        buffer = DeviceBuffer(device, block_bytes(shape, itemsize))
        device.zero(buffer)
        return cls(device, buffer, shape, itemsize)

    def address(self, tensor: int) -> int:
        """Where a tensor begins."""
        return self.buffer.pointer + tensor * _plane_bytes(self.shape, self.itemsize)

    def copy_from(
        self,
        source: KvBlock,
        length: int,
        *,
        num_slots: int = 1,
        to_slot: int = 0,
        to_entry: int = 0,
        from_slot: int = 0,
        from_entry: int = 0,
    ) -> None:
        """Copy `length` entries of `num_slots` slots, for all heads of all tensors."""
        num_tensors, _, num_heads, _, head_dim = self.shape
        self.device.copy_box(
            self._box(to_slot, to_entry),
            source._box(from_slot, from_entry),
            width=length * head_dim * self.itemsize,
            height=num_slots * num_heads,
            depth=num_tensors,
        )

    def _box(self, slot: int, entry: int) -> Box:
        _, _, num_heads, num_entries, head_dim = self.shape
        entry_bytes = head_dim * self.itemsize
        offset = (slot * num_heads * num_entries + entry) * entry_bytes
        return Box(
            pointer=self.buffer.pointer + offset,
            pitch=num_entries * entry_bytes,
            num_rows=_plane_rows(self.shape, self.itemsize),
        )


Blocks = tuple[KvBlock, KvBlock, KvBlock]  # self_kv, cross_kv, encoder_attention_mask


class DeviceKvCache:
    """See `model_runner.KvCache`.

    Everything starts as zeros: entries that no beam sees still enter products with weight 0,
    and 0 * NaN is NaN.
    """

    def __init__(
        self,
        device: CudaDevice,
        shape: ModelShape,
        itemsize: int,
        num_slots: int,
        num_entries: int,
        source_len: int,
    ) -> None:
        self._device = device
        self._shape = shape
        self._itemsize = itemsize
        entry_values = 2 * shape.num_decoder_layers * shape.num_heads * shape.head_dim
        self.entry_bytes = self.source_bytes = entry_values * itemsize
        # Graphs of decode steps over these very buffers, by (requests, beams); None: run once.
        self.graphs: dict[tuple[int, int], Graph | None] = {}
        self._take(self._allocate(num_slots, num_entries, source_len))
        self.num_slots, self.num_entries, self.source_len = num_slots, num_entries, source_len

    def resize(self, num_used: int, num_slots: int, num_entries: int, source_len: int) -> None:
        """Change the room, keeping what the first `num_used` slots hold and what still fits.

        Raises:
            EngineError: The device has no such room, or failed; nothing has changed.
        """
        blocks = self._allocate(num_slots, num_entries, source_len)
        num_kept = min(self.num_entries, num_entries), min(self.source_len, source_len)
        blocks[0].copy_from(self.self_kv, num_kept[0], num_slots=num_used)
        blocks[1].copy_from(self.cross_kv, num_kept[1], num_slots=num_used)
        blocks[2].copy_from(self.encoder_attention_mask, num_kept[1], num_slots=num_used)
        self._device.synchronize()  # before the old buffers are freed
        self._take(blocks)
        self.num_slots, self.num_entries, self.source_len = num_slots, num_entries, source_len

    def put(self, slot: int, encoded: KvBlock, row: int, source_len: int) -> None:
        """Fill a slot from row `row` of the encoder's outputs."""
        self.cross_kv.copy_from(encoded, source_len, to_slot=slot, from_slot=row)
        seen = np.zeros(self.source_len, np.int32)
        seen[:source_len] = 1
        row_bytes = self.source_len * _INT32_BYTES
        self._device.upload(self.encoder_attention_mask.address(0) + slot * row_bytes, seen)
        self._device.synchronize()  # `encoded` and `seen` may go

    def move(self, source: int, target: int) -> None:
        """Copy one slot over another."""
        for block in (self.self_kv, self.cross_kv, self.encoder_attention_mask):
            block.copy_from(block, block.shape[3], to_slot=target, from_slot=source)

    def write(self, new_entries: np.ndarray, present: KvBlock) -> None:
        """Store one step's K/V, a block of W entries a slot, at int64[R, W] entries."""
        for slot, entries in enumerate(new_entries.tolist()):
            for beam, entry, length in _runs(entries):
                self.self_kv.copy_from(
                    present,
                    length,
                    to_slot=slot,
                    to_entry=entry,
                    from_slot=slot,
                    from_entry=beam,
                )

    def _allocate(self, num_slots: int, num_entries: int, source_len: int) -> Blocks:
        heads, head_dim = self._shape.num_heads, self._shape.head_dim
        tensors = 2 * self._shape.num_decoder_layers
        self_kv = (tensors, num_slots, heads, num_entries, head_dim)
        cross_kv = (tensors, num_slots, heads, source_len, head_dim)
        return (
            KvBlock.zeros(self._device, self_kv, self._itemsize),
            KvBlock.zeros(self._device, cross_kv, self._itemsize),
            KvBlock.zeros(self._device, (1, num_slots, 1, source_len, 1), _INT32_BYTES),
        )

    def _take(self, blocks: Blocks) -> None:
        self.graphs.clear()  # they read and write the buffers that go
        self.self_kv, self.cross_kv, self.encoder_attention_mask = blocks


def block_bytes(shape: BlockShape, itemsize: int) -> int:
    """Memory that a block of this shape takes."""
    return shape[0] * _plane_bytes(shape, itemsize)


def _plane_bytes(shape: BlockShape, itemsize: int) -> int:
    """Bytes from one tensor to the next."""
    _, _, _, num_entries, head_dim = shape
    return _plane_rows(shape, itemsize) * num_entries * head_dim * itemsize


def _plane_rows(shape: BlockShape, itemsize: int) -> int:
    """Rows of one tensor, and as many more as align the next one."""
    _, num_slots, num_heads, num_entries, head_dim = shape
    step = _ALIGNMENT // gcd(_ALIGNMENT, num_entries * head_dim * itemsize)
    return -(-num_slots * num_heads // step) * step


def _runs(entries: list[int]) -> Iterator[tuple[int, int, int]]:
    """(first beam, first entry, length) of each run of neighbouring entries: one copy each."""
    first = 0
    for beam in range(1, len(entries) + 1):
        if beam == len(entries) or entries[beam] != entries[beam - 1] + 1:
            yield first, entries[first], beam - first
            first = beam
