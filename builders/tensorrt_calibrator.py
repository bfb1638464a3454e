"""TensorRT's own int8 calibrator, `IInt8EntropyCalibrator2`, through Polygraphy.

TensorRT 8.6 and 10 have it; 11 takes int8 from Q/DQ graphs alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from polygraphy.backend.trt import Calibrator

from builders.plan_calibration import Feed, PlanCalibration
from builders.plan_facts import CalibrationFacts
from kobart_runtime.cuda_device import CudaDevice, DeviceBuffer
from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import sha256_of

NAME = "IInt8EntropyCalibrator2"


@dataclass
class CalibrationRun:
    """One calibration while a plan is built."""

    calibration: PlanCalibration
    cache: Path  # what was found, now or before
    num_batches: int = field(default=0, init=False)  # that TensorRT has asked for
    _buffers: dict[str, DeviceBuffer] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.reused = self.cache.exists()
        # Polygraphy writes in place: a build that is killed must not leave half a cache.
        self._partial = self.cache.with_suffix(".partial")
        self._partial.unlink(missing_ok=True)

    def calibrator(self) -> Any:
        """What a builder configuration takes."""
        return Calibrator(self, cache=str(self._cache))

    def __iter__(self) -> Iterator[dict[str, int]]:
        """Device pointers of each batch's inputs; valid until the next one."""
        device = CudaDevice()
        for feed in self.calibration.batches():
            self.num_batches += 1
            yield self._upload(device, feed)

    def finish(self) -> CalibrationFacts:
        """Give the batches' memory back and keep the cache.

        Raises:
            BuildError: TensorRT has not calibrated.
        """
        self._buffers.clear()
        if not self._cache.is_file():
            raise BuildError(
                f"TensorRT wrote no calibration cache after {self.num_batches} batches: its log "
                "says why"
            )
        if not self.reused:
            self._partial.replace(self.cache)
        return CalibrationFacts(
            calibrator=NAME,
            documents=self.calibration.documents,
            num_batches=self.num_batches,
            shapes=self.calibration.shapes,
            cache=self.cache.name,
            cache_sha256=sha256_of(self.cache),
            cache_reused=self.reused,
        )

    @property
    def _cache(self) -> Path:
        return self.cache if self.reused else self._partial

    def _upload(self, device: CudaDevice, feed: Feed) -> dict[str, int]:
        for name, array in feed.items():
            if name not in self._buffers:
                self._buffers[name] = DeviceBuffer(device, array.nbytes)
            device.upload(self._buffers[name].pointer, _as_tensorrt_takes_it(name, array))
        device.synchronize()
        return {name: buffer.pointer for name, buffer in self._buffers.items()}


def _as_tensorrt_takes_it(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype not in (np.float32, np.int32):
        raise BuildError(f"calibration takes float32 and int32, {name} is {array.dtype}")
    return array
