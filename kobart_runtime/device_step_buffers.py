"""The buffers of a decode step: small inputs and candidates, in pinned memory and on the device.

They are as large as the largest step and never move, so that captured graphs stay valid.
"""

from __future__ import annotations

from math import prod

import numpy as np

from kobart_runtime import bindings
from kobart_runtime.cuda_device import CudaDevice, DeviceBuffer, PinnedBuffer
from kobart_runtime.device_kv_cache import BlockShape, KvBlock, block_bytes
from kobart_runtime.model_config import ModelShape
from kobart_runtime.model_runner import StepInputs

_INPUTS = (
    bindings.DECODER_INPUT_IDS,
    bindings.POSITION_IDS,
    bindings.DECODER_ATTENTION_MASK,
)
_CANDIDATES = {bindings.CANDIDATE_LOGPROBS: np.float32, bindings.CANDIDATE_IDS: np.int32}
_ELEMENT_BYTES = 4  # int32 and float32 alike


class StepBuffers:
    """What a decode step reads and writes beside the cache."""

    def __init__(
        self, device: CudaDevice, shape: ModelShape, itemsize: int, largest: tuple[int, ...]
    ) -> None:
        """Take the memory.

        Args:
            device: Where.
            shape: The engines' dimensions.
            itemsize: Bytes of one element of K/V.
            largest: The largest [R, W, C] of a step.
        """
        self._device = device
        self._shape = shape
        self._itemsize = itemsize
        requests, beams, _ = largest
        sizes = {
            bindings.DECODER_INPUT_IDS: requests * beams,
            bindings.POSITION_IDS: requests,
            bindings.DECODER_ATTENTION_MASK: prod(largest),
            **dict.fromkeys(_CANDIDATES, requests * beams * shape.num_candidates),
        }
        self._host = {n: PinnedBuffer(device, k * _ELEMENT_BYTES) for n, k in sizes.items()}
        sizes[bindings.LOGITS] = requests * beams * shape.vocab_size
        self._on_device = {n: DeviceBuffer(device, k * _ELEMENT_BYTES) for n, k in sizes.items()}
        self.addresses = {name: buffer.pointer for name, buffer in self._on_device.items()}
        self._present = DeviceBuffer(device, self._largest_present(requests, beams))

    def fill(self, inputs: StepInputs, num_rows: int) -> None:
        """Write a step's inputs to pinned memory; rows without a request see nothing."""
        for name in _INPUTS:
            given = getattr(inputs, name)
            array = self._host[name].array((num_rows, *given.shape[1:]), np.int32)
            array[: len(given)] = given
            array[len(given) :] = 0

    def upload(self, num_rows: int, num_beams: int, num_entries: int) -> None:
        """Copy the inputs to the device."""
        shapes = ((num_rows, num_beams), (num_rows, 1), (num_rows, num_beams, num_entries))
        for name, shape in zip(_INPUTS, shapes, strict=True):
            self._device.upload(self.addresses[name], self._host[name].array(shape, np.int32))

    def download(self, num_rows: int, num_beams: int) -> None:
        """Copy the candidates to pinned memory."""
        shape = (num_rows, num_beams, self._shape.num_candidates)
        for name, dtype in _CANDIDATES.items():
            self._device.download(self._host[name].array(shape, dtype), self.addresses[name])

    def candidates(self, num_requests: int, num_beams: int) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities and ids as copies, once the device has been waited for."""
        shape = (num_requests, num_beams, self._shape.num_candidates)
        logprobs, ids = (self._host[n].array(shape, d).copy() for n, d in _CANDIDATES.items())
        return logprobs, ids

    def present(self, num_rows: int, num_beams: int) -> KvBlock:
        """The step's own K/V, W entries a request."""
        shape = self._present_shape(num_rows, num_beams)
        return KvBlock(self._device, self._present, shape, self._itemsize)

    def _largest_present(self, max_requests: int, max_beams: int) -> int:
        """Bytes of the largest block; alignment may make that of a smaller step the largest."""
        shapes = (
            self._present_shape(requests, beams)
            for requests in range(1, max_requests + 1)
            for beams in range(1, max_beams + 1)
        )
        return max(block_bytes(shape, self._itemsize) for shape in shapes)

    def _present_shape(self, requests: int, beams: int) -> BlockShape:
        heads, head_dim = self._shape.num_heads, self._shape.head_dim
        return 2 * self._shape.num_decoder_layers, requests, heads, beams, head_dim
