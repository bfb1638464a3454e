"""The encoder over OpenVINO on the CPU, for processors with matrix units (AMX).

Between an int8 graph's products it computes in bfloat16 where the processor can.

The one file of the runtime that knows OpenVINO: a server needs it for such builds alone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

# Its import reports itself to its makers over the network by this package; where the package cannot
# be imported it takes a stub of its own that does nothing. A server calls nobody.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

from kobart_runtime import bindings  # noqa: E402
from kobart_runtime.errors import engine_errors  # noqa: E402
from kobart_runtime.model_config import ModelShape  # noqa: E402

# Kernels that are kept for the shapes they were made for: about 20 shapes, each a MiB at full size.
_KEPT_KERNELS = 400


class OpenVinoEncoder:
    """An encoder graph over OpenVINO; see `onnxruntime_runner.Encoder`.

    Attributes:
        kv_dtype: Of the keys and values that it gives.
        in_bfloat16: Whether the processor can; one that cannot has no matrix units either.
    """

    def __init__(self, path: Path, shape: ModelShape, num_threads: int = 0) -> None:
        """Compile the graph.

        Args:
            path: An ONNX file of standard operators.
            shape: Its dimensions, from the manifest.
            num_threads: 0 takes one per physical core.

        Raises:
            EngineError: The file is no such graph.
        """
        self._outputs = bindings.of_layers(bindings.present_cross, shape.num_decoder_layers)
        with engine_errors(f"{path} cannot be loaded"):
            core = openvino.Core()
            self.in_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            options = {
                "PERFORMANCE_HINT": "LATENCY",  # all cores for one call
                "INFERENCE_PRECISION_HINT": "bf16" if self.in_bfloat16 else "f32",
                "INFERENCE_NUM_THREADS": str(num_threads),
                "CPU_RUNTIME_CACHE_CAPACITY": str(_KEPT_KERNELS),
            }
            self._model = core.compile_model(str(path), "CPU", options)
            self._call = self._model.create_infer_request()
            self.kv_dtype = self._model.output(self._outputs[0]).get_element_type().to_dtype()

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> list[np.ndarray]:
        """Cross-attention K/V of each decoder layer, each of the type and layout as built.

        They lie in memory of the engine, which the next call writes to.

        Raises:
            EngineError: The engine refused the inputs or failed.
        """
        feeds = {bindings.INPUT_IDS: input_ids, bindings.ATTENTION_MASK: attention_mask}
        return self._run(self._outputs, feeds)

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Some outputs, which the caller may keep.

        Args:
            names: Of the outputs.
            feeds: An array for each input.

        Raises:
            EngineError: The engine refused the inputs or failed.
        """
        return [array.copy() for array in self._run(names, feeds)]

    def give_back_freed(self) -> None:
        """Return to the machine what was needed for the largest call.

        Raises:
            EngineError: The engine could not.
        """
        token = np.ones((1, 1), np.int32)
        with engine_errors("OpenVINO failed"):
            # Results lie in the request, and in the model until another request has some.
            self._call = self._model.create_infer_request()
            self.encode(token, token)
            self._model.release_memory()

    def _run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        with engine_errors("OpenVINO failed"):
            results = self._call.infer(dict(feeds), share_inputs=True, share_outputs=True)
            return [results[name] for name in names]
