"""The few calls of the CUDA runtime that the TensorRT runner makes: memory, copies, graphs.

Everything runs on one stream, so it happens in the order it was asked for; results are in host
memory after `synchronize`. `cuda-python` is imported when a device is opened, so that a server
without a GPU never needs it.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kobart_runtime.errors import EngineError


class DeviceBuffer:
    """Device memory, freed with this object."""

    def __init__(self, device: CudaDevice, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self.pointer = device.allocate(num_bytes)
        weakref.finalize(self, device.free, self.pointer)


class PinnedBuffer:
    """Page-locked host memory, which copies read and write while the host goes on."""

    def __init__(self, device: CudaDevice, num_bytes: int) -> None:
        self.pointer = device.allocate_host(num_bytes)
        self._bytes = np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(self.pointer))
        weakref.finalize(self, device.free_host, self.pointer)

    def array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The first bytes as an array, which shares this memory."""
        num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._bytes[:num_bytes].view(dtype).reshape(shape)


class Graph:
    """A captured sequence of device work, destroyed with this object."""

    def __init__(self, device: CudaDevice, executable: Any) -> None:
        self.executable = executable
        weakref.finalize(self, device.destroy_graph, executable)


@dataclass(frozen=True)
class Box:
    """Where a three-dimensional copy begins, and how its bytes lie in memory."""

    pointer: int
    pitch: int  # bytes from one row to the next
    num_rows: int  # rows from one plane to the next


class CudaDevice:
    """The current CUDA device, and one stream on it."""

    def __init__(self) -> None:
        """Open the device.

        Raises:
            EngineError: cuda-python is missing, or no GPU answers.
        """
        self._cuda = _load_cuda()
        if not self._call("cudaGetDeviceCount"):
            raise EngineError("the TensorRT runtime needs an NVIDIA GPU, and CUDA finds none")
        # Non-blocking: the legacy default stream would wait for this one, and it for that.
        flags = self._cuda.cudaStreamNonBlocking
        self._stream = self._call("cudaStreamCreateWithFlags", flags)
        self.stream_handle = int(self._stream)

    def allocate(self, num_bytes: int) -> int:
        """Device memory; its content is undefined."""
        return int(self._call("cudaMalloc", max(num_bytes, 1)))

    def free_bytes(self) -> int:
        """Device memory that nobody has taken."""
        return int(self._call("cudaMemGetInfo"))

    def free(self, pointer: int) -> None:
        """Give device memory back, once all work is done."""
        self._call("cudaFree", pointer)

    def allocate_host(self, num_bytes: int) -> int:
        """Page-locked host memory."""
        return int(self._call("cudaMallocHost", num_bytes))

    def free_host(self, pointer: int) -> None:
        """Give page-locked memory back."""
        self._call("cudaFreeHost", pointer)

    def zero(self, buffer: DeviceBuffer) -> None:
        """Set every byte to 0."""
        if buffer.num_bytes:
            self._call("cudaMemsetAsync", buffer.pointer, 0, buffer.num_bytes, self._stream)

    def upload(self, pointer: int, array: np.ndarray) -> None:
        """Copy a C-contiguous array to the device; pinned memory is read only later."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        source = array.ctypes.data
        self._call("cudaMemcpyAsync", pointer, source, array.nbytes, kind, self._stream)

    def download(self, array: np.ndarray, pointer: int) -> None:
        """Copy into a C-contiguous array, which holds the result after `synchronize`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        target = array.ctypes.data
        self._call("cudaMemcpyAsync", target, pointer, array.nbytes, kind, self._stream)

    def copy_box(self, target: Box, source: Box, width: int, height: int, depth: int) -> None:
        """Copy on the device `depth` planes of `height` rows of `width` bytes."""
        if not (width and height and depth):
            return
        parameters = self._cuda.cudaMemcpy3DParms()
        parameters.dstPtr = self._pitched(target)
        parameters.srcPtr = self._pitched(source)
        parameters.extent = self._cuda.make_cudaExtent(width, height, depth)
        parameters.kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpy3DAsync", parameters, self._stream)

    def synchronize(self) -> None:
        """Wait for all work.

        Raises:
            EngineError: Some of it failed.
        """
        self._call("cudaStreamSynchronize", self._stream)

    def capture(self, record: Callable[[], None]) -> Graph:
        """What `record` puts on the stream, as a graph; nothing of it runs now."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            record()
        except BaseException:
            self._cuda.cudaStreamEndCapture(self._stream)  # leave the stream usable
            raise
        graph = self._call("cudaStreamEndCapture", self._stream)
        executable = self._call("cudaGraphInstantiate", graph, 0)
        self._call("cudaGraphDestroy", graph)
        return Graph(self, executable)

    def launch(self, graph: Graph) -> None:
        """Run a graph."""
        self._call("cudaGraphLaunch", graph.executable, self._stream)

    def destroy_graph(self, executable: Any) -> None:
        """Give a graph back."""
        self._call("cudaGraphExecDestroy", executable)

    def _pitched(self, box: Box) -> Any:
        return self._cuda.make_cudaPitchedPtr(box.pointer, box.pitch, box.pitch, box.num_rows)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime; its result, if it has one."""
        error, *results = getattr(self._cuda, name)(*arguments)
        if error != self._cuda.cudaError_t.cudaSuccess:
            raise EngineError(f"{name} failed: {error.name} ({int(error)})")
        return results[0] if results else None


def _load_cuda() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise EngineError(
            f"the TensorRT runtime needs cuda-python ({error}): pip install cuda-python"
        ) from error
    return runtime
