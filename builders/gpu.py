"""What the GPU of this machine is and can do, asked of its driver alone."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from kobart_runtime.errors import BuildError, ConfigError

DRIVER_LIBRARY = "libcuda.so.1"
# CUDA driver API, CUdevice_attribute.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
LOWEST_CAPABILITY = (6, 0)  # of TensorRT 8.6; later ones ask for more, and say so themselves
# TensorRT's support matrix, "Hardware and Precision": 6.1 (Pascal) has no fast fp16, 6.0 no int8.
_WITHOUT_FAST = {"fp16": {(6, 1)}, "int8": {(6, 0), (6, 2)}}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    cuda_version: str  # the newest that the driver runs

    @property
    def capability(self) -> str:
        """For example 8.6."""
        return ".".join(map(str, self.compute_capability))

    def is_fast_in(self, precision: str) -> bool:
        """Whether it computes fp16 or int8 faster than fp32."""
        return self.compute_capability not in _WITHOUT_FAST.get(precision, set())

    def check(self, precision: str) -> None:
        """Refuse what the GPU cannot do.

        Raises:
            ConfigError: It is too old for TensorRT, or has no fast arithmetic of this precision.
        """
        if self.compute_capability < LOWEST_CAPABILITY:
            raise ConfigError(
                f"{self.name} has compute capability {self.capability}, TensorRT needs "
                f"{'.'.join(map(str, LOWEST_CAPABILITY))}: take --runtime onnxruntime"
            )
        if not self.is_fast_in(precision):
            raise ConfigError(
                f"{self.name} (compute capability {self.capability}) has no fast {precision}: "
                "take --precision fp32"
            )


def probe_gpu(library: Any = None) -> Gpu:
    """The first GPU that the driver shows.

    Args:
        library: The driver's library; None loads it.

    Raises:
        BuildError: There is no driver, or no GPU.
    """
    driver = library or _load_driver()
    _check(driver.cuInit(0), "cuInit")
    count, device = ctypes.c_int(), ctypes.c_int()
    _check(driver.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if count.value == 0:
        raise BuildError("the NVIDIA driver shows no GPU")
    _check(driver.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    _check(driver.cuDeviceGetName(name, len(name), device), "cuDeviceGetName")
    _check(driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device), "cuDeviceTotalMem")
    version = ctypes.c_int()
    _check(driver.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    return Gpu(
        name=name.value.decode(),
        compute_capability=(
            _attribute(driver, _CAPABILITY_MAJOR, device),
            _attribute(driver, _CAPABILITY_MINOR, device),
        ),
        memory_bytes=memory.value,
        cuda_version=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def _attribute(driver: Any, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    error = driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    _check(error, "cuDeviceGetAttribute")
    return value.value


def _load_driver() -> Any:
    try:
        return ctypes.CDLL(DRIVER_LIBRARY)
    except OSError as error:
        raise BuildError(f"there is no NVIDIA driver ({error})") from error


def _check(error: int, what: str) -> None:
    if error != 0:
        raise BuildError(f"no NVIDIA GPU answers: {what} gives CUDA error {error}")
