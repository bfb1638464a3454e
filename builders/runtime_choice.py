"""Which runtime a build is for: what was asked for, or the best that this machine has."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from builders.gpu import Gpu, probe_gpu
from kobart_runtime.errors import BuildError, ConfigError

ASKED_REASON = "as asked"
PREPARED_REASON = "as asked: graphs for a machine with TensorRT and a GPU"
# What the TensorRT builder and runner import, and how to get it.
TENSORRT_MODULES = {
    "tensorrt": "TensorRT (pip install tensorrt)",
    "polygraphy": "polygraphy (pip install polygraphy)",
    "cuda.bindings.runtime": "cuda-python (pip install cuda-python)",
}


@dataclass(frozen=True, kw_only=True)
class RuntimeChoice:
    """A runtime, why it was taken, and the GPU it will run on."""

    runtime: str
    reason: str
    gpu: Gpu | None = None  # None: it runs on the CPU


def choose_runtime(requested: str, precision: str) -> RuntimeChoice:
    """Take TensorRT where it and a GPU are there, else ONNX Runtime; never against what was asked.

    Raises:
        ConfigError: TensorRT was asked for and something is missing, or the GPU cannot do it.
    """
    if requested not in ("auto", "tensorrt"):
        return RuntimeChoice(runtime=requested, reason=ASKED_REASON)
    gpu, missing = find_gpu(), missing_packages()
    if gpu is None or missing:
        found = "" if gpu else "an NVIDIA GPU that answers its driver"
        lacks = " and ".join(filter(None, [*missing, found]))
        if requested == "tensorrt":
            raise ConfigError(f"--runtime tensorrt: this machine lacks {lacks}")
        return RuntimeChoice(runtime="onnxruntime", reason=f"auto: this machine lacks {lacks}")
    try:
        gpu.check(precision)
    except ConfigError as error:
        if requested == "tensorrt":
            raise
        return RuntimeChoice(runtime="onnxruntime", reason=f"auto: {error}")
    reason = ASKED_REASON if requested == "tensorrt" else f"auto: TensorRT and {gpu.name} are here"
    return RuntimeChoice(runtime="tensorrt", reason=reason, gpu=gpu)


def prepared_choice() -> RuntimeChoice:
    """TensorRT on another machine; this one needs neither it nor a GPU."""
    return RuntimeChoice(runtime="tensorrt", reason=PREPARED_REASON)


def find_gpu() -> Gpu | None:
    """The GPU, if there is one."""
    try:
        return probe_gpu()
    except BuildError:
        return None


def missing_packages() -> list[str]:
    """What TensorRT builds need and this Python cannot import."""
    return [remedy for name, remedy in TENSORRT_MODULES.items() if not _imports(name)]


def _imports(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
