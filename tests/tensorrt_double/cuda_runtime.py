"""`cuda.bindings.runtime` in host memory, stricter than a GPU.

Work is put on a stream and runs when the stream is waited for, so that a result read too early is
wrong; fresh memory is full of NaN; every copy must lie inside one living allocation of the right
kind. Arguments by position only, as the bindings take them.
"""

from __future__ import annotations

import ctypes
import enum
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.tensorrt_double.violation import ContractViolationError, require

ALIGNMENT = 256  # of cudaMalloc: CUDA C++ Programming Guide, "Device Memory Accesses"
DEVICE_BYTES = 16 << 30
Work = Callable[[], None]


class CudaError(enum.IntEnum):
    cudaSuccess = 0  # noqa: N815
    cudaErrorInvalidValue = 1  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815


class MemcpyKind(enum.IntEnum):
    cudaMemcpyHostToHost = 0  # noqa: N815
    cudaMemcpyHostToDevice = 1  # noqa: N815
    cudaMemcpyDeviceToHost = 2  # noqa: N815
    cudaMemcpyDeviceToDevice = 3  # noqa: N815


class CaptureMode(enum.IntEnum):
    cudaStreamCaptureModeGlobal = 0  # noqa: N815
    cudaStreamCaptureModeThreadLocal = 1  # noqa: N815
    cudaStreamCaptureModeRelaxed = 2  # noqa: N815


@dataclass
class PitchedPtr:
    ptr: int
    pitch: int
    xsize: int
    ysize: int


@dataclass
class Extent:
    width: int
    height: int
    depth: int


@dataclass
class Memcpy3DParms:
    srcPtr: PitchedPtr | None = None  # noqa: N815
    dstPtr: PitchedPtr | None = None  # noqa: N815
    extent: Extent | None = None
    kind: MemcpyKind | None = None


@dataclass(eq=False)
class Stream:
    handle: int
    pending: list[Work] = field(default_factory=list)
    recorded: list[Work] | None = None  # while it is being captured

    def __int__(self) -> int:
        return self.handle

    def put(self, work: Work) -> None:
        (self.pending if self.recorded is None else self.recorded).append(work)

    def flush(self) -> None:
        require(self.recorded is None, "waited for a stream that is being captured")
        pending, self.pending = self.pending, []
        for work in pending:
            work()


@dataclass(eq=False)
class RecordedGraph:
    work: list[Work]
    alive: bool = True


@dataclass
class _Allocation:
    kind: str  # "device" or "host"
    memory: np.ndarray  # uint8, the aligned part


class CudaRuntimeDouble:
    """One device's memory and streams. Counts are for tests to look at."""

    def __init__(self) -> None:
        self._allocations: dict[int, _Allocation] = {}
        self._streams: dict[int, Stream] = {}
        self.num_launches = 0
        self.num_captures = 0

    @property
    def num_allocations(self) -> int:
        return len(self._allocations)

    @property
    def device_bytes(self) -> int:
        """Device memory that is allocated now."""
        return sum(len(a.memory) for a in self._allocations.values() if a.kind == "device")

    def module(self) -> types.ModuleType:
        """What `from cuda.bindings import runtime` gives."""
        module = types.ModuleType("cuda.bindings.runtime")
        for name in FUNCTIONS:
            setattr(module, name, getattr(self, name))
        for name, value in VALUES.items():
            setattr(module, name, value)
        return module

    def stream(self, handle: int) -> Stream:
        require(handle in self._streams, f"{handle} is no stream")
        return self._streams[handle]

    def view(self, pointer: int, num_bytes: int, kind: str = "device") -> np.ndarray:
        """The bytes behind a pointer."""
        for start, allocation in self._allocations.items():
            offset = pointer - start
            if offset >= 0 and offset + num_bytes <= len(allocation.memory):
                require(
                    allocation.kind == kind,
                    f"{kind} memory was asked for, {pointer:#x} is {allocation.kind}",
                )
                return allocation.memory[offset : offset + num_bytes]
        raise ContractViolationError(f"{num_bytes} bytes at {pointer:#x} are in no allocation")

    def is_pinned(self, pointer: int) -> bool:
        return any(
            a.kind == "host" and start <= pointer < start + len(a.memory)
            for start, a in self._allocations.items()
        )

    # The functions of the CUDA runtime; each returns (error, results...).

    def cudaGetDeviceCount(self, /) -> tuple:  # noqa: N802
        return CudaError.cudaSuccess, 1

    def cudaStreamCreateWithFlags(self, flags: int, /) -> tuple:  # noqa: N802
        require(flags in (0, 1), f"stream flags {flags}")
        stream = Stream(handle=0x5000 + len(self._streams))
        self._streams[stream.handle] = stream
        return CudaError.cudaSuccess, stream

    def cudaStreamSynchronize(self, stream: Stream, /) -> tuple:  # noqa: N802
        stream.flush()
        return (CudaError.cudaSuccess,)

    def cudaMalloc(self, size: int, /) -> tuple:  # noqa: N802
        require(not self._capturing(), "cudaMalloc during a capture")
        return CudaError.cudaSuccess, self._allocate("device", size)

    def cudaMallocHost(self, size: int, /) -> tuple:  # noqa: N802
        return CudaError.cudaSuccess, self._allocate("host", size)

    def cudaMemGetInfo(self, /) -> tuple:  # noqa: N802
        return CudaError.cudaSuccess, DEVICE_BYTES - self.device_bytes, DEVICE_BYTES

    def cudaFree(self, pointer: int, /) -> tuple:  # noqa: N802
        return self._free("device", pointer)

    def cudaFreeHost(self, pointer: int, /) -> tuple:  # noqa: N802
        return self._free("host", pointer)

    def cudaMemsetAsync(self, pointer: int, value: int, count: int, stream: Stream, /) -> tuple:  # noqa: N802
        require(0 <= value < 256, f"cudaMemset sets bytes, got {value}")
        target = self.view(pointer, count)
        stream.put(lambda: target.fill(value))
        return (CudaError.cudaSuccess,)

    def cudaMemcpyAsync(  # noqa: N802
        self, target: int, source: int, count: int, kind: MemcpyKind, stream: Stream, /
    ) -> tuple:
        if kind is MemcpyKind.cudaMemcpyHostToDevice:
            read = self._host(source, count, stream)
            write = self.view(target, count)
            if not self.is_pinned(source):
                read = read.copy()  # pageable memory is read before the call returns
        else:
            require(kind is MemcpyKind.cudaMemcpyDeviceToHost, f"cudaMemcpyAsync of {kind!r}")
            write = self._host(target, count, stream)
            read = self.view(source, count)
        stream.put(lambda: np.copyto(write, read))
        return (CudaError.cudaSuccess,)

    def cudaMemcpy3DAsync(self, parameters: Memcpy3DParms, stream: Stream, /) -> tuple:  # noqa: N802
        require(parameters.kind is MemcpyKind.cudaMemcpyDeviceToDevice, "a copy on the device")
        extent, source, target = parameters.extent, parameters.srcPtr, parameters.dstPtr
        assert extent
        assert source
        assert target
        pairs = list(zip(self._rows(target, extent), self._rows(source, extent), strict=True))

        def copy() -> None:
            for write, read in pairs:
                np.copyto(write, read)

        stream.put(copy)
        return (CudaError.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: Stream, mode: CaptureMode, /) -> tuple:  # noqa: N802
        require(isinstance(mode, CaptureMode), f"capture mode {mode!r}")
        require(stream.recorded is None, "the stream is already being captured")
        stream.recorded = []
        return (CudaError.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: Stream, /) -> tuple:  # noqa: N802
        require(stream.recorded is not None, "the stream is not being captured")
        graph, stream.recorded = RecordedGraph(stream.recorded or []), None
        self.num_captures += 1
        return CudaError.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: RecordedGraph, flags: int, /) -> tuple:  # noqa: N802
        require(graph.alive and flags == 0, "instantiate a living graph, without flags")
        return CudaError.cudaSuccess, RecordedGraph(list(graph.work))

    def cudaGraphDestroy(self, graph: RecordedGraph, /) -> tuple:  # noqa: N802
        graph.alive = False
        return (CudaError.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: RecordedGraph, /) -> tuple:  # noqa: N802
        return self.cudaGraphDestroy(graph)

    def cudaGraphLaunch(self, graph: RecordedGraph, stream: Stream, /) -> tuple:  # noqa: N802
        require(graph.alive, "launched a graph that was destroyed")
        require(stream.recorded is None, "launched a graph during a capture")
        for work in graph.work:
            stream.put(work)
        self.num_launches += 1
        return (CudaError.cudaSuccess,)

    def make_cudaPitchedPtr(self, ptr: int, pitch: int, xsize: int, ysize: int, /) -> PitchedPtr:  # noqa: N802
        return PitchedPtr(ptr, pitch, xsize, ysize)

    def make_cudaExtent(self, width: int, height: int, depth: int, /) -> Extent:  # noqa: N802
        return Extent(width, height, depth)

    def _allocate(self, kind: str, size: int) -> int:
        require(size > 0, f"allocated {size} bytes")
        memory = np.full(size + ALIGNMENT, 0xFF, np.uint8)  # NaN as float16 and as float32
        start = memory.ctypes.data
        skipped = -start % ALIGNMENT
        self._allocations[start + skipped] = _Allocation(kind, memory[skipped : skipped + size])
        return start + skipped

    def _free(self, kind: str, pointer: int) -> tuple:
        require(not self._capturing(), "freed memory during a capture")
        for stream in self._streams.values():  # freeing waits for the device
            stream.flush()
        found = self._allocations.get(pointer)
        require(
            found is not None and found.kind == kind, f"freed {pointer:#x}, which is not {kind}"
        )
        self._allocations.pop(pointer).memory.fill(0xFF)
        return (CudaError.cudaSuccess,)

    def _capturing(self) -> bool:
        return any(stream.recorded is not None for stream in self._streams.values())

    def _host(self, pointer: int, count: int, stream: Stream) -> np.ndarray:
        if self.is_pinned(pointer):
            return self.view(pointer, count, "host")
        require(stream.recorded is None, "captured a copy of pageable memory")
        return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(pointer))

    def _rows(self, pitched: PitchedPtr, extent: Extent) -> Iterator[np.ndarray]:
        require(extent.width <= pitched.pitch, f"rows of {extent.width} at pitch {pitched.pitch}")
        require(extent.height <= pitched.ysize, f"{extent.height} rows of {pitched.ysize}")
        for plane in range(extent.depth):
            for row in range(extent.height):
                offset = (plane * pitched.ysize + row) * pitched.pitch
                yield self.view(pitched.ptr + offset, extent.width)


FUNCTIONS = [name for name in vars(CudaRuntimeDouble) if name.startswith(("cuda", "make_cuda"))]
VALUES: dict[str, Any] = {
    "cudaStreamNonBlocking": 1,
    "cudaError_t": CudaError,
    "cudaMemcpyKind": MemcpyKind,
    "cudaStreamCaptureMode": CaptureMode,
    "cudaMemcpy3DParms": Memcpy3DParms,
}
