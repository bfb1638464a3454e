"""Which model runner runs a build, and which engine files it opens.

A runner's library is imported only when a build needs it: a server has one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from kobart_runtime.errors import BuildError, EngineError
from kobart_runtime.model_config import ENGINE_FILES, ModelConfig, ModelShape, verify_artefacts
from kobart_runtime.model_runner import ModelRunner

# Names of outputs and arrays by input name -> those outputs, in that order.
Engine = Callable[[list[str], dict[str, np.ndarray]], list[np.ndarray]]


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
    if runtime == "torchscript":
        return _torchscript().TorchScriptRunner(folder, shape)
    from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner

    return OnnxRuntimeRunner(folder, shape)


def open_engine(folder: Path, role: str, config: ModelConfig) -> Engine:
    """Open one engine alone; not for TensorRT, whose plans Triton runs itself.

    Args:
        folder: Where its file lies.
        role: "encoder" or "decoder".
        config: The build's.

    Raises:
        BuildError: The file is missing or not what was built.
        EngineError: It cannot be loaded.
    """
    file = engine_files(config.runtime)[("encoder", "decoder").index(role)]
    verify_artefacts(folder, config.artefacts, [file])
    if config.runtime == "torchscript":
        return _torchscript().TorchScriptEngine.open(folder, role, config.shape).run
    from kobart_runtime.onnxruntime_runner import open_session, run_session

    return partial(run_session, open_session(folder / file))


def _torchscript() -> Any:
    """The module that holds PyTorch."""
    try:
        return import_module("kobart_runtime.torchscript_runner")
    except ImportError as error:
        raise EngineError(
            f"this build needs PyTorch, which cannot be imported ({error}): pip install torch"
        ) from error
