"""Which model runner runs a build, and which engine files it opens.

A runner's library is imported only when a build needs it: a server has one of them.
"""

from __future__ import annotations

from pathlib import Path

from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import ENGINE_FILES, ModelShape
from kobart_runtime.model_runner import ModelRunner


def engine_files(runtime: str) -> tuple[str, str]:
    """The encoder's and the decoder's file.

    Raises:
        BuildError: This version has no such runtime.
    """
    if runtime not in ENGINE_FILES:
        raise BuildError(
            f"this build needs the {runtime} runtime, this version has {', '.join(ENGINE_FILES)}"
        )
    return ENGINE_FILES[runtime]


def open_runner(folder: Path, runtime: str, shape: ModelShape) -> ModelRunner:
    """Open the engines of a folder.

    Raises:
        BuildError: This version has no such runtime.
        EngineError: Its library, its device or a file is missing or not what it should be.
    """
    engine_files(runtime)
    if runtime == "tensorrt":
        from kobart_runtime.tensorrt_runner import TensorRtRunner

        return TensorRtRunner(folder, shape)
    from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner

    return OnnxRuntimeRunner(folder, shape)
