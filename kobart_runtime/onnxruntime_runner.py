"""The model runner over ONNX Runtime on the CPU; K/V stay in host memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime

from kobart_runtime import bindings
from kobart_runtime.errors import EngineError, engine_errors
from kobart_runtime.host_kv_cache import HostKvCache
from kobart_runtime.host_memory import give_back_freed, host_free_bytes
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE, ModelShape
from kobart_runtime.model_runner import StepInputs, StepOutput

FLOAT_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
KV_DTYPES = {**FLOAT_DTYPES, "tensor(int8)": np.int8, "tensor(uint8)": np.uint8}


class Encoder(Protocol):
    """What encodes for the runner; its own library may be another one."""

    kv_dtype: Any  # of what it gives, a numpy type

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> list[np.ndarray]:
        """Cross-attention K/V of each decoder layer, valid until the next call."""

    def give_back_freed(self) -> None:
        """Return to the machine what was needed for the largest call."""


class OnnxRuntimeRunner:
    """See `model_runner.ModelRunner`."""

    def __init__(
        self,
        folder: Path,
        shape: ModelShape,
        num_threads: int = 0,
        *,
        encoder: Encoder | None = None,
        decoder_file: str = DECODER_FILE,
    ) -> None:
        """Open the engines.

        Args:
            folder: Holds their files.
            shape: Their dimensions, from the manifest.
            num_threads: Threads of each engine; 0 takes one per physical core.
            encoder: Encodes; None opens `encoder.onnx` with ONNX Runtime.
            decoder_file: Decodes.

        Raises:
            EngineError: A file is no ONNX graph, or differs from the manifest or the other.
        """
        self._shape = shape
        self.num_candidates = shape.num_candidates
        self.vocab_size = shape.vocab_size
        self._file = decoder_file
        self._encoder = encoder or OnnxRuntimeEncoder(folder / ENCODER_FILE, shape, num_threads)
        self._decoder = open_session(folder / self._file, num_threads, arena=False)
        num_layers = shape.num_decoder_layers
        self._past_self = bindings.of_layers(bindings.past_self, num_layers)
        self._past_cross = bindings.of_layers(bindings.past_cross, num_layers)
        present = bindings.of_layers(bindings.present_self, num_layers)
        self._step_outputs = [bindings.CANDIDATE_LOGPROBS, bindings.CANDIDATE_IDS, *present]
        self._check_outputs()
        inputs = self._decoder.get_inputs()
        self._self_dtype = _declared(inputs, self._past_self[0], FLOAT_DTYPES, self._file)
        self._cross_dtype = _declared(inputs, self._past_cross[0], KV_DTYPES, self._file)
        self._check_encoder()

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> list[np.ndarray]:
        """Cross-attention K/V of each decoder layer, for `HostKvCache.put`.

        Raises:
            EngineError: The encoder failed.
        """
        return self._encoder.encode(input_ids, attention_mask)

    def new_cache(self, num_slots: int, num_entries: int, source_len: int) -> HostKvCache:
        """Room for K/V, zeroed."""
        return HostKvCache(
            self._shape, self._self_dtype, num_slots, num_entries, source_len, self._cross_dtype
        )

    def free_bytes(self) -> int:
        """Memory that is free at this moment where caches lie."""
        return host_free_bytes()

    def give_back_freed(self) -> None:
        """See `model_runner.ModelRunner`.

        Raises:
            EngineError: The encoder could not.
        """
        self._encoder.give_back_freed()
        give_back_freed()

    def decode_step(
        self, cache: HostKvCache, inputs: StepInputs, *, want_logits: bool
    ) -> StepOutput:
        """Run one step and write its K/V to `inputs.new_entries` of the cache."""
        feeds = self.step_feeds(cache, inputs)
        names = [*self._step_outputs, bindings.LOGITS] if want_logits else self._step_outputs
        logprobs, ids, *present = run_session(self._decoder, names, feeds)
        logits = present.pop() if want_logits else None
        cache.write(inputs.new_entries, present)
        return StepOutput(logprobs, ids, logits)

    def step_feeds(self, cache: HostKvCache, inputs: StepInputs) -> dict[str, np.ndarray]:
        """All inputs of the decoder for one step; the K/V among them are views of the cache."""
        num_requests = inputs.decoder_input_ids.shape[0]
        feeds = {
            bindings.DECODER_INPUT_IDS: inputs.decoder_input_ids,
            bindings.POSITION_IDS: inputs.position_ids,
            bindings.ENCODER_ATTENTION_MASK: cache.encoder_attention_mask[:num_requests],
            bindings.DECODER_ATTENTION_MASK: inputs.decoder_attention_mask,
        }
        # Leading slices of C-contiguous arrays: ONNX Runtime reads them where they lie.
        for name, array in zip(self._past_self, cache.self_kv, strict=True):
            feeds[name] = array[:num_requests]
        for name, array in zip(self._past_cross, cache.cross_kv, strict=True):
            feeds[name] = array[:num_requests]
        return feeds

    def _check_encoder(self) -> None:
        """Refuse what numpy would convert without a word when it is put into a cache."""
        given: np.dtype[Any] = np.dtype(self._encoder.kv_dtype)
        taken: np.dtype[Any] = np.dtype(self._cross_dtype)
        if given != taken:
            raise EngineError(
                f"the encoder gives keys and values as {given}, {self._file} takes {taken}; "
                "build again"
            )

    def _check_outputs(self) -> None:
        outputs = {output.name: output.shape for output in self._decoder.get_outputs()}
        wanted = {
            bindings.LOGITS: self._shape.vocab_size,
            bindings.CANDIDATE_IDS: self._shape.num_candidates,
        }
        for name, size in wanted.items():
            if name not in outputs or outputs[name][-1] != size:
                raise EngineError(
                    f"{self._file} gives {name} {outputs.get(name)}, the manifest says "
                    f"[.., .., {size}]; build again"
                )


class OnnxRuntimeEncoder:
    """An encoder graph over ONNX Runtime; see `Encoder`."""

    def __init__(self, path: Path, shape: ModelShape, num_threads: int = 0) -> None:
        """Open the graph.

        Raises:
            EngineError: The file is no ONNX graph, or not of an encoder.
        """
        self._session = open_session(path, num_threads)
        self._outputs = bindings.of_layers(bindings.present_cross, shape.num_decoder_layers)
        outputs = self._session.get_outputs()
        self.kv_dtype = _declared(outputs, self._outputs[0], KV_DTYPES, path.name)

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> list[np.ndarray]:
        """Cross-attention K/V of each decoder layer, each of the type and layout as built."""
        feeds = {bindings.INPUT_IDS: input_ids, bindings.ATTENTION_MASK: attention_mask}
        return run_session(self._session, self._outputs, feeds)

    def give_back_freed(self) -> None:
        """Shrink the arena, which keeps what its largest call has needed until a call says so.

        Raises:
            EngineError: That call failed.
        """
        shrinking = onnxruntime.RunOptions()
        shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        token = np.ones((1, 1), np.int32)
        # A result in the arena would hold on to the part of it that it lies in.
        output = next(each for each in self._session.get_outputs() if each.name == self._outputs[0])
        sizes = [size if isinstance(size, int) else 1 for size in output.shape]
        result: np.ndarray = np.empty(sizes, self.kv_dtype)
        call = self._session.io_binding()
        call.bind_cpu_input(bindings.INPUT_IDS, token)
        call.bind_cpu_input(bindings.ATTENTION_MASK, token)
        call.bind_output(output.name, "cpu", 0, result.dtype, result.shape, result.ctypes.data)
        with engine_errors("ONNX Runtime failed"):
            self._session.run_with_iobinding(call, shrinking)


def open_session(
    path: Path, num_threads: int = 0, *, arena: bool = True
) -> onnxruntime.InferenceSession:
    """Open an ONNX file on the CPU.

    Args:
        path: The file.
        num_threads: 0 takes one per physical core.
        arena: Whether it keeps the memory of its calls for the next ones. That makes large calls
            faster, and calls of many small shapes take more of it with time.

    Raises:
        EngineError: The file cannot be loaded.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = 3  # errors; its warnings are about its own fallbacks
    # Each session has threads of its own. While they spin for more work they hold the cores, and
    # the encoder and the decoder take turns.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with engine_errors(f"{path} cannot be loaded"):
        return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def run_session(
    session: onnxruntime.InferenceSession, outputs: list[str], feeds: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """Run a session.

    Raises:
        EngineError: The engine refused the inputs or failed.
    """
    with engine_errors("ONNX Runtime failed"):
        return session.run(outputs, feeds)


def _declared(
    tensors: Sequence[onnxruntime.NodeArg], name: str, dtypes: Mapping[Any, type], file: str
) -> type:
    """Type of K/V, as an engine declares them."""
    declared = {tensor.name: tensor.type for tensor in tensors}.get(name)
    if declared not in dtypes:
        raise EngineError(
            f"{file} has {name} as {declared}, it must be one of {', '.join(dtypes)}; build again"
        )
    return dtypes[declared]
