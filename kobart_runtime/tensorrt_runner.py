"""The model runner over TensorRT: K/V and logits stay on the device, candidates are copied out.

A decode step is: upload ids, positions and the ancestors' mask; run; download the candidates.
That sequence is captured as a CUDA graph the second time it is needed for a batch size, beam
width and cache, and replayed from then on. Batches are padded to the next power of two, so that
few graphs serve all of them. The step's K/V is put in its place in the cache after the graph, by
copies whose places change from step to step.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from kobart_runtime import bindings
from kobart_runtime.admission import MEBIBYTE
from kobart_runtime.cuda_device import CudaDevice, DeviceBuffer
from kobart_runtime.device_kv_cache import DeviceKvCache, KvBlock
from kobart_runtime.device_step_buffers import StepBuffers
from kobart_runtime.errors import EngineError
from kobart_runtime.host_memory import give_back_freed
from kobart_runtime.model_config import ENGINE_FILES, ModelShape
from kobart_runtime.model_runner import StepInputs, StepOutput
from kobart_runtime.tensorrt_engine import TensorRtEngine

_logger = logging.getLogger(__name__)

ENCODER_PLAN, DECODER_PLAN = ENGINE_FILES["tensorrt"]


class TensorRtRunner:
    """See `model_runner.ModelRunner`."""

    def __init__(self, folder: Path, shape: ModelShape) -> None:
        """Open the two plans on the current GPU.

        Args:
            folder: Holds `encoder.plan` and `decoder.plan`.
            shape: Their dimensions, from the manifest.

        Raises:
            EngineError: TensorRT, cuda-python or a GPU is missing, or a plan is not for them.
        """
        self._shape = shape
        self.num_candidates = shape.num_candidates
        self.vocab_size = shape.vocab_size
        self._device = CudaDevice()
        self._encoder = TensorRtEngine(folder / ENCODER_PLAN, self._device)
        self._decoder = TensorRtEngine(folder / DECODER_PLAN, self._device)
        self._share_scratch()
        self._check_outputs()
        num_layers = shape.num_decoder_layers
        self._past_self = bindings.of_layers(bindings.past_self, num_layers)
        self._past_cross = bindings.of_layers(bindings.past_cross, num_layers)
        self._present = bindings.of_layers(bindings.present_self, num_layers)
        self._cross_outputs = bindings.of_layers(bindings.present_cross, num_layers)
        self._itemsize = self._decoder.dtype(self._past_self[0]).itemsize
        largest = self._decoder.largest(bindings.DECODER_ATTENTION_MASK)
        self._max_requests = largest[0]
        self._buffers = StepBuffers(self._device, shape, self._itemsize, largest)

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> KvBlock:
        """Cross-attention K/V of each decoder layer, on the device."""
        num_requests, source_len = input_ids.shape
        feeds = {bindings.INPUT_IDS: input_ids, bindings.ATTENTION_MASK: attention_mask}
        block = self._new_block(num_requests, source_len)
        addresses = {name: block.address(i) for i, name in enumerate(self._cross_outputs)}
        buffers = {name: self._upload(array) for name, array in feeds.items()}
        addresses.update({name: buffer.pointer for name, buffer in buffers.items()})
        shapes = {name: array.shape for name, array in feeds.items()}
        self._encoder.launch(self._encoder.bind(shapes, addresses))
        self._device.synchronize()  # the inputs may go
        return block

    def new_cache(self, num_slots: int, num_entries: int, source_len: int) -> DeviceKvCache:
        """Room for K/V, zeroed."""
        return DeviceKvCache(
            self._device, self._shape, self._itemsize, num_slots, num_entries, source_len
        )

    def free_bytes(self) -> int:
        """Memory that is free at this moment where caches lie."""
        return self._device.free_bytes()

    def give_back_freed(self) -> None:
        """See `model_runner.ModelRunner`."""
        give_back_freed()

    def decode_step(
        self, cache: DeviceKvCache, inputs: StepInputs, *, want_logits: bool
    ) -> StepOutput:
        """Run one step and write its K/V to `inputs.new_entries` of the cache."""
        num_requests, num_beams = inputs.decoder_input_ids.shape
        num_rows = min(_next_power_of_two(num_requests), cache.num_slots, self._max_requests)
        if num_requests > num_rows:
            raise EngineError(
                f"a step of {num_requests} requests, the plan and the cache take {num_rows}"
            )
        self._buffers.fill(inputs, num_rows)
        self._run(cache, num_rows, num_beams)
        present = self._buffers.present(num_rows, num_beams)
        cache.write(inputs.new_entries, present)
        logits = self._download_logits(num_requests, num_beams) if want_logits else None
        self._device.synchronize()
        logprobs, ids = self._buffers.candidates(num_requests, num_beams)
        return StepOutput(logprobs, ids, logits)

    def _share_scratch(self) -> None:
        """Give both engines one scratch buffer: they run on one stream, one after another."""
        engines = (self._encoder, self._decoder)
        needed, free = max(engine.scratch_bytes for engine in engines), self._device.free_bytes()
        if needed > free:
            raise EngineError(
                f"the plans need {needed / MEBIBYTE:.0f} MiB of scratch memory, "
                f"{free / MEBIBYTE:.0f} MiB of the GPU are free: free some, or build with a "
                "smaller --max-batch-size, --max-beams, --max-source-length or --max-target-length"
            )
        scratch = DeviceBuffer(self._device, needed)
        for engine in engines:
            engine.use_scratch(scratch)
        _logger.info(
            "scratch memory of the plans: %.0f MiB, shared by %d execution contexts",
            needed / MEBIBYTE,
            sum(engine.num_contexts for engine in engines),
        )

    def _run(self, cache: DeviceKvCache, num_rows: int, num_beams: int) -> None:
        """Replay the step's graph; without one run it, and from the second time on capture it."""
        key = (num_rows, num_beams)
        graph = cache.graphs.get(key)
        if graph is not None:
            self._device.launch(graph)
            return
        context = self._decoder.bind(
            self._shapes(cache, num_rows, num_beams), self._addresses(cache, num_rows, num_beams)
        )

        def record() -> None:
            self._buffers.upload(num_rows, num_beams, cache.num_entries)
            self._decoder.launch(context)
            self._buffers.download(num_rows, num_beams)

        record()  # also before a capture: TensorRT settles new shapes in the first launch
        cache.graphs[key] = self._device.capture(record) if key in cache.graphs else None

    def _shapes(
        self, cache: DeviceKvCache, num_rows: int, num_beams: int
    ) -> dict[str, tuple[int, ...]]:
        heads, head_dim = self._shape.num_heads, self._shape.head_dim
        self_kv = (num_rows, heads, cache.num_entries, head_dim)
        cross_kv = (num_rows, heads, cache.source_len, head_dim)
        return {
            bindings.DECODER_INPUT_IDS: (num_rows, num_beams),
            bindings.POSITION_IDS: (num_rows, 1),
            bindings.ENCODER_ATTENTION_MASK: (num_rows, cache.source_len),
            bindings.DECODER_ATTENTION_MASK: (num_rows, num_beams, cache.num_entries),
            **dict.fromkeys(self._past_self, self_kv),
            **dict.fromkeys(self._past_cross, cross_kv),
        }

    def _addresses(self, cache: DeviceKvCache, num_rows: int, num_beams: int) -> dict[str, int]:
        present = self._buffers.present(num_rows, num_beams)
        blocks = (
            (self._past_self, cache.self_kv),
            (self._past_cross, cache.cross_kv),
            (self._present, present),
        )
        return {
            **self._buffers.addresses,
            bindings.ENCODER_ATTENTION_MASK: cache.encoder_attention_mask.address(0),
            **{name: block.address(i) for names, block in blocks for i, name in enumerate(names)},
        }

    def _download_logits(self, num_requests: int, num_beams: int) -> np.ndarray:
        logits = np.empty((num_requests, num_beams, self.vocab_size), np.float32)
        self._device.download(logits, self._buffers.addresses[bindings.LOGITS])
        return logits

    def _new_block(self, num_requests: int, source_len: int) -> KvBlock:
        heads, head_dim = self._shape.num_heads, self._shape.head_dim
        tensors = 2 * self._shape.num_decoder_layers
        shape = (tensors, num_requests, heads, source_len, head_dim)
        return KvBlock.zeros(self._device, shape, self._itemsize)

    def _upload(self, array: np.ndarray) -> DeviceBuffer:
        buffer = DeviceBuffer(self._device, array.nbytes)
        self._device.upload(buffer.pointer, np.ascontiguousarray(array, np.int32))
        return buffer

    def _check_outputs(self) -> None:
        wanted = {
            bindings.LOGITS: self._shape.vocab_size,
            bindings.CANDIDATE_IDS: self._shape.num_candidates,
        }
        for name, size in wanted.items():
            found = self._decoder.shape(name) if name in self._decoder.outputs else None
            if found is None or found[-1] != size:
                raise EngineError(
                    f"{DECODER_PLAN} gives {name} {found}, the manifest says [.., .., {size}]; "
                    "build again"
                )


def _next_power_of_two(value: int) -> int:
    return 1 << (value - 1).bit_length()
