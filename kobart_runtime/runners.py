"""Which model runner runs a build, and which engine files it opens.

A runner's library is imported only when a build needs it: a server has one of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from kobart_runtime.errors import EngineError
from kobart_runtime.model_config import EngineConfig, ModelConfig, verify_artefacts
from kobart_runtime.model_runner import ModelRunner

_logger = logging.getLogger(__name__)

# Names of outputs and arrays by input name -> those outputs, in that order.
Engine = Callable[[list[str], dict[str, np.ndarray]], list[np.ndarray]]


def open_runner(folder: Path, engines: EngineConfig, num_threads: int = 0) -> ModelRunner:
    """Open the engines of a folder, as the front model does.

    Args:
        folder: Where their files lie.
        engines: What runs which of them.
        num_threads: Of each engine on the CPU; 0 takes one per physical core.

    Raises:
        EngineError: A library, a device or a file is missing or not what it should be.
    """
    shape = engines.shape
    if engines.runtime == "tensorrt":
        from kobart_runtime.tensorrt_runner import TensorRtRunner

        return TensorRtRunner(folder, shape)
    if engines.runtime == "torchscript":
        return _torchscript().TorchScriptRunner(folder, shape, num_threads)
    from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner

    return OnnxRuntimeRunner(
        folder,
        shape,
        num_threads,
        encoder=open_encoder(folder, engines, num_threads),
        decoder_file=engines.files[1],
    )


def open_encoder(folder: Path, engines: EngineConfig, num_threads: int = 0) -> Any:
    """Open the encoder of a build that ONNX Runtime decodes for.

    Returns:
        An `onnxruntime_runner.Encoder`.

    Raises:
        EngineError: Its library or its file is missing or not what it should be.
    """
    path = folder / engines.files[0]
    if engines.encoder_engine != "openvino":
        from kobart_runtime.onnxruntime_runner import OnnxRuntimeEncoder

        return OnnxRuntimeEncoder(path, engines.shape, num_threads)
    encoder = _openvino().OpenVinoEncoder(path, engines.shape, num_threads)
    if not encoder.in_bfloat16:
        _logger.warning(
            "this build's encoder is for processors with matrix units (AMX), this one has none "
            "and will be slow: build with --encoder-engine onnxruntime"
        )
    return encoder


def open_engine(folder: Path, role: str, config: ModelConfig, num_threads: int = 0) -> Engine:
    """Open one engine alone; not for TensorRT, whose plans Triton runs itself.

    The encoder is the one that the front model runs; where that gives int8 K/V they become floats
    here, as the engines' contract has them.

    Args:
        folder: Where its files lie.
        role: "encoder" or "decoder".
        config: The build's.
        num_threads: Of the engine; 0 takes one per physical core.

    Raises:
        BuildError: The file is missing or not what was built, or needs what this version lacks.
        EngineError: It cannot be loaded.
    """
    engines = config.engines
    file, *further = engines.engine_model_files(role)
    verify_artefacts(folder, config.artefacts, [file, *further])
    if config.runtime == "torchscript":
        return _torchscript().TorchScriptEngine.open(folder, role, config.shape, num_threads).run
    if further:
        from kobart_runtime.float_kv_encoder import FloatKvEncoder

        encoder = open_encoder(folder, engines, num_threads)
        return FloatKvEncoder(encoder, folder / further[0], config.shape, num_threads).run
    if role == "encoder" and config.encoder_engine == "openvino":
        return open_encoder(folder, engines, num_threads).run
    from kobart_runtime.onnxruntime_runner import open_session, run_session

    return partial(run_session, open_session(folder / file, num_threads))


def _torchscript() -> Any:
    return _import("kobart_runtime.torchscript_runner", "PyTorch", "torch")


def _openvino() -> Any:
    return _import("kobart_runtime.openvino_encoder", "OpenVINO", "openvino")


def _import(module: str, library: str, package: str) -> Any:
    """A module that holds a library which few builds need."""
    try:
        return import_module(module)
    except ImportError as error:
        raise EngineError(
            f"this build needs {library}, which cannot be imported ({error}): pip install {package}"
        ) from error
