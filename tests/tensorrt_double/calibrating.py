"""The int8 calibrators of TensorRT 8 and 10: what they are asked for, and in which order.

From the docstrings of NVIDIA's bindings: the cache is read first; without one, batches are asked
for until there are none left, each a list with a device pointer for every input, of the shape that
the calibration profile calls optimal; then the cache is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from tests.tensorrt_double.cuda_runtime import CudaRuntimeDouble
from tests.tensorrt_double.plan import TensorFacts
from tests.tensorrt_double.violation import require


def calibrating_classes() -> list[type]:
    """Base classes; users write the methods, so calling the base's own is a violation."""

    class IInt8Calibrator:
        def __init__(self) -> None:
            self._is_initialized = True  # the real trampolines crash without this

        def get_batch_size(self) -> int:
            raise NotImplementedError

        def get_batch(self, names: list[str]) -> Any:
            raise NotImplementedError

        def read_calibration_cache(self) -> Any:
            raise NotImplementedError

        def write_calibration_cache(self, cache: Any) -> None:
            raise NotImplementedError

    class IInt8EntropyCalibrator2(IInt8Calibrator):
        pass

    class IInt8LegacyCalibrator(IInt8Calibrator):
        pass

    return [IInt8Calibrator, IInt8EntropyCalibrator2, IInt8LegacyCalibrator]


def calibrate(trt: Any, cuda: CudaRuntimeDouble, network: Any, config: Any) -> bytes:
    """Drive a configuration's calibrator as the builder does; the cache that is used."""
    calibrator = config.int8_calibrator
    _check_setting(trt, network, config)
    header = f"TRT-{trt.__version__}-EntropyCalibration2\n".encode()
    calibrator.get_batch_size()
    cache = calibrator.read_calibration_cache()
    if cache and bytes(cache).startswith(header):
        return bytes(cache)
    peaks = _peaks(cuda, network, calibrator, config._calibration_profile._shapes)
    lines = [f"{name}: {peak:.6g}\n" for name, peak in peaks.items()]
    cache = header + "".join(lines).encode()
    calibrator.write_calibration_cache(memoryview(cache))
    return cache


def _check_setting(trt: Any, network: Any, config: Any) -> None:
    require(isinstance(config.int8_calibrator, trt.IInt8EntropyCalibrator2), "no calibrator of 2")
    require(getattr(config.int8_calibrator, "_is_initialized", False), "base was not initialized")
    require(trt.BuilderFlag.INT8 in config._flags, "a calibrator without the INT8 flag")
    kinds = {node.op_type for node in network._model().graph.node}
    require("QuantizeLinear" not in kinds, "a calibrator for a graph with scales of its own")
    require(config._calibration_profile is not None, "no calibration profile")


def _peaks(
    cuda: CudaRuntimeDouble, network: Any, calibrator: Any, shapes: dict[str, Any]
) -> dict[str, float]:
    """Largest magnitude of each output over all batches, which must run and give numbers."""
    inputs: list[TensorFacts] = network._inputs()
    graph = network._model()
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [facts.name for facts in inputs]
    outputs = [output.name for output in graph.graph.output]
    peaks: dict[str, float] = {}
    while pointers := calibrator.get_batch(names):
        require(len(pointers) == len(names), f"{len(pointers)} pointers for {len(names)} inputs")
        feeds = {
            facts.name: _array(cuda, facts, shapes[facts.name][1], pointer)
            for facts, pointer in zip(inputs, pointers, strict=True)
        }
        for name, value in zip(outputs, session.run(outputs, feeds), strict=True):
            require(np.isfinite(value).all(), f"calibration gave no numbers for {name}")
            peaks[name] = max(peaks.get(name, 0.0), float(np.abs(value).max()))
    require(bool(peaks), "there was no calibration batch")
    return peaks


def _array(
    cuda: CudaRuntimeDouble, facts: TensorFacts, shape: tuple[int, ...], pointer: Any
) -> np.ndarray:
    require(facts.dtype in (np.float32, np.int32), f"calibration input {facts.name} {facts.dtype}")
    require(isinstance(pointer, int), f"{pointer!r} is no device pointer")
    num_bytes = int(np.prod(shape)) * np.dtype(facts.dtype).itemsize
    array = cuda.view(pointer, num_bytes).view(facts.dtype).reshape(shape)
    require(np.isfinite(array).all(), f"calibration input {facts.name} holds memory never written")
    return array
