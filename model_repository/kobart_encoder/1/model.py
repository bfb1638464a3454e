"""The encoder engine as a Triton model of its own, so that perf_analyzer can measure it alone.

The front model does not call it: `kobart` opens the same file in its own process. Where that file
gives keys and values as int8, they become floats here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

# Before the server's working directory, which may hold another kobart_runtime.
_FOLDER = Path(__file__).parent.absolute()  # links kept: this interpreter reads ASCII names alone
sys.path.insert(0, str(_FOLDER))

from kobart_runtime.errors import KobartError  # noqa: E402
from kobart_runtime.host_cpus import HostCpus  # noqa: E402
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig  # noqa: E402
from kobart_runtime.runners import open_engine  # noqa: E402
from kobart_runtime.serving_options import ServingOptions  # noqa: E402


class TritonPythonModel:
    """One engine: an ONNX Runtime session, an OpenVINO model or a TorchScript module."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the engine beside this file; any reason not to fails the load with its message."""
        try:
            config = ModelConfig.from_manifest(_FOLDER / MANIFEST_NAME)
            options = ServingOptions.from_environment(os.environ)
            num_threads = options.num_threads(HostCpus.read())
            self._run = open_engine(_FOLDER, "encoder", config, num_threads)
        except KobartError as error:
            raise pb_utils.TritonModelException(str(error)) from error

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run each request as it is: their shapes differ."""
        return [self._infer(request) for request in requests]

    def _infer(self, request: Any) -> Any:
        feeds = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        names = request.requested_output_names()
        try:
            arrays = self._run(names, feeds)
        except KobartError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(error.status_message))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, array) for name, array in zip(names, arrays, strict=True)]
        )
