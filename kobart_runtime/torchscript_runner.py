"""The model runner over TorchScript on the CPU; K/V stay in host memory.

The one file of the runtime that knows PyTorch: a server needs it for TorchScript builds alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from kobart_runtime import bindings
from kobart_runtime.errors import EngineError
from kobart_runtime.host_kv_cache import HostKvCache
from kobart_runtime.host_memory import give_back_freed, host_free_bytes
from kobart_runtime.model_config import ENGINE_FILES, ModelShape
from kobart_runtime.model_runner import StepInputs, StepOutput

ENCODER_FILE, DECODER_FILE = ENGINE_FILES["torchscript"]


class TorchScriptRunner:
    """See `model_runner.ModelRunner`."""

    def __init__(self, folder: Path, shape: ModelShape, num_threads: int = 0) -> None:
        """Open the two engines, and run each once.

        Args:
            folder: Holds `encoder.pt` and `decoder.pt`.
            shape: Their dimensions, from the manifest.
            num_threads: Of PyTorch in this process; 0 leaves what it has: one per physical core.

        Raises:
            EngineError: A file is no TorchScript module, or differs from the manifest.
        """
        self._shape = shape
        self.num_candidates = shape.num_candidates
        self.vocab_size = shape.vocab_size
        self._encoder = TorchScriptEngine.open(folder, "encoder", shape, num_threads)
        self._decoder = TorchScriptEngine.open(folder, "decoder", shape, num_threads)
        num_layers = shape.num_decoder_layers
        self._past_self = bindings.of_layers(bindings.past_self, num_layers)
        self._past_cross = bindings.of_layers(bindings.past_cross, num_layers)
        present = bindings.of_layers(bindings.present_self, num_layers)
        self._step_outputs = [bindings.CANDIDATE_LOGPROBS, bindings.CANDIDATE_IDS, *present]
        self._check_outputs()

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> list[np.ndarray]:
        """Cross-attention K/V of each decoder layer, each float32[R, H, S, D]."""
        feeds = {bindings.INPUT_IDS: input_ids, bindings.ATTENTION_MASK: attention_mask}
        return self._encoder.run(self._encoder.outputs, feeds)

    def new_cache(self, num_slots: int, num_entries: int, source_len: int) -> HostKvCache:
        """Room for K/V, zeroed."""
        return HostKvCache(self._shape, np.float32, num_slots, num_entries, source_len)

    def free_bytes(self) -> int:
        """Memory that is free at this moment where caches lie."""
        return host_free_bytes()

    def give_back_freed(self) -> None:
        """See `model_runner.ModelRunner`."""
        give_back_freed()

    def decode_step(
        self, cache: HostKvCache, inputs: StepInputs, *, want_logits: bool
    ) -> StepOutput:
        """Run one step and write its K/V to `inputs.new_entries` of the cache."""
        names = [*self._step_outputs, bindings.LOGITS] if want_logits else self._step_outputs
        logprobs, ids, *present = self._decoder.run(names, self._step_feeds(cache, inputs))
        logits = present.pop() if want_logits else None
        cache.write(inputs.new_entries, present)
        return StepOutput(logprobs, ids, logits)

    def _step_feeds(self, cache: HostKvCache, inputs: StepInputs) -> dict[str, np.ndarray]:
        """All inputs of the decoder for one step; the K/V among them are views of the cache."""
        num_requests = inputs.decoder_input_ids.shape[0]
        return {
            bindings.DECODER_INPUT_IDS: inputs.decoder_input_ids,
            bindings.POSITION_IDS: inputs.position_ids,
            bindings.ENCODER_ATTENTION_MASK: cache.encoder_attention_mask[:num_requests],
            bindings.DECODER_ATTENTION_MASK: inputs.decoder_attention_mask,
            **_leading(self._past_self, cache.self_kv, num_requests),
            **_leading(self._past_cross, cache.cross_kv, num_requests),
        }

    def _check_outputs(self) -> None:
        """Compare the smallest request's arrays with the manifest: a module states no shapes."""
        one = np.ones((1, 1), np.int32)
        heads, head_dim = self._shape.num_heads, self._shape.head_dim
        encoded = self.encode(one, one)
        _check_shape(ENCODER_FILE, self._encoder.outputs[0], encoded[0], (1, heads, 1, head_dim))
        cache = self.new_cache(1, 1, 1)
        cache.put(0, encoded, 0, 1)
        inputs = StepInputs(one, one - 1, one[None], np.zeros((1, 1), np.int64))
        output = self.decode_step(cache, inputs, want_logits=True)
        assert output.logits is not None
        _check_shape(DECODER_FILE, bindings.LOGITS, output.logits, (1, 1, self.vocab_size))
        ids, num_candidates = output.candidate_ids, self.num_candidates
        _check_shape(DECODER_FILE, bindings.CANDIDATE_IDS, ids, (1, 1, num_candidates))


class TorchScriptEngine:
    """One traced module, whose tensors have an order and here get their names back."""

    def __init__(self, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.outputs = list(outputs)
        self._inputs = list(inputs)
        self._path = path
        self._module = load_module(path)

    @classmethod
    def open(
        cls, folder: Path, role: str, shape: ModelShape, num_threads: int = 0
    ) -> TorchScriptEngine:
        """Open a folder's encoder or decoder.

        Args:
            folder: Holds its file.
            role: "encoder" or "decoder".
            shape: Its dimensions, from the manifest.
            num_threads: Of PyTorch in this process; 0 leaves what it has.

        Raises:
            EngineError: The file cannot be loaded.
        """
        if num_threads:
            torch.set_num_threads(num_threads)
        num_layers = shape.num_decoder_layers
        if role == "encoder":
            outputs = bindings.of_layers(bindings.present_cross, num_layers)
            inputs = [bindings.INPUT_IDS, bindings.ATTENTION_MASK]
            return cls(folder / ENCODER_FILE, inputs, outputs)
        inputs = [
            bindings.DECODER_INPUT_IDS,
            bindings.POSITION_IDS,
            bindings.ENCODER_ATTENTION_MASK,
            bindings.DECODER_ATTENTION_MASK,
        ]
        outputs = [bindings.LOGITS, bindings.CANDIDATE_LOGPROBS, bindings.CANDIDATE_IDS]
        for layer in range(num_layers):
            inputs += [*bindings.past_self(layer), *bindings.past_cross(layer)]
            outputs += bindings.present_self(layer)
        return cls(folder / DECODER_FILE, inputs, outputs)

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run the module on arrays, which it reads where they lie.

        Args:
            names: The outputs to return.
            feeds: An array for each input.

        Raises:
            EngineError: The module refused the inputs or failed.
        """
        try:
            inputs = [torch.from_numpy(feeds[name]) for name in self._inputs]
            with torch.inference_mode():
                results = self._module(*inputs)
            arrays = {name: result.numpy() for name, result in self._named(results)}
            return [arrays[name] for name in names]
        except KeyError as error:
            raise EngineError(f"TorchScript failed: there is no tensor {error}") from error
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            raise EngineError(f"TorchScript failed: {_last_line(error)}") from error

    def _named(self, results: Sequence[torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
        if len(results) != len(self.outputs):
            raise EngineError(
                f"{self._path} gives {len(results)} tensors, the manifest says "
                f"{len(self.outputs)}; build again"
            )
        return list(zip(self.outputs, results, strict=True))


def load_module(path: Path) -> torch.jit.ScriptModule:
    """Load a TorchScript file for the CPU.

    Raises:
        EngineError: The file cannot be loaded.
    """
    try:
        with warnings.catch_warnings():
            # torch.jit is deprecated for new work in favour of torch.export, and still complete.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise EngineError(f"{path} cannot be loaded: {_last_line(error)}") from error


def _leading(
    names: Sequence[str], arrays: Sequence[np.ndarray], num_requests: int
) -> dict[str, np.ndarray]:
    return {name: array[:num_requests] for name, array in zip(names, arrays, strict=True)}


def _check_shape(file: str, name: str, array: np.ndarray, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise EngineError(
            f"{file} gives {name} {list(array.shape)}, the manifest says {list(expected)}; "
            "build again"
        )


def _last_line(error: Exception) -> str:
    """What went wrong; PyTorch puts the traceback of its interpreter before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
