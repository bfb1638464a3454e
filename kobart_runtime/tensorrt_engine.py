"""A TensorRT plan and its execution contexts: the one file of the runtime that knows TensorRT.

Written to the API that TensorRT 8.6, 10 and 11 share (named tensors, `execute_async_v3`).
`tensorrt` is imported when a plan is opened, so that a server without it never needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kobart_runtime.cuda_device import CudaDevice, DeviceBuffer
from kobart_runtime.errors import EngineError
from kobart_runtime.tensorrt_scratch import give_scratch, new_context, scratch_bytes

Shape = tuple[int, ...]


@dataclass(frozen=True)
class InputRange:
    """Shapes that one optimization profile accepts for one input; both inclusive."""

    min: Shape
    max: Shape

    def accepts(self, shape: Shape) -> bool:
        """Whether a shape lies in the range."""
        if len(shape) != len(self.min):
            return False
        return all(a <= b <= c for a, b, c in zip(self.min, shape, self.max, strict=True))


class TensorRtEngine:
    """A plan, with one execution context for each optimization profile.

    A context stays with its profile: changing a context's profile costs more than a decode step.
    The contexts have no scratch memory of their own, since each would take what the most demanding
    profile needs: `use_scratch` gives them one buffer before the first launch.

    Attributes:
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        scratch_bytes: Scratch memory that a run under the most demanding profile takes.
    """

    def __init__(self, path: Path, device: CudaDevice) -> None:
        """Open a plan.

        Raises:
            EngineError: TensorRT is missing or does not take the plan.
        """
        self._device = device
        self._trt = _load_tensorrt()
        self._logger = self._trt.Logger(self._trt.Logger.WARNING)
        self._runtime = self._trt.Runtime(self._logger)
        # A version-compatible plan carries code; the manifest's sha256 vouches for the file.
        self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineError(
                f"{path} is not for TensorRT {self._trt.__version__} on this GPU (its log says "
                "why): build again on this machine"
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self.inputs = [name for name in names if self._is_input(name)]
        self.outputs = [name for name in names if not self._is_input(name)]
        profiles = range(self._engine.num_optimization_profiles)
        self._ranges = [
            {name: self._input_range(name, profile) for name in self.inputs} for profile in profiles
        ]
        self.scratch_bytes = max(scratch_bytes(self._engine))
        self._contexts = [self._new_context(profile) for profile in profiles]
        device.synchronize()

    def use_scratch(self, buffer: DeviceBuffer) -> None:
        """Let all contexts work in one buffer of at least `scratch_bytes`.

        Engines may share it as long as they run on one stream, one after another.
        """
        self._scratch = buffer  # lives as long as the contexts
        for context in self._contexts:
            give_scratch(context, buffer)

    @property
    def num_contexts(self) -> int:
        """Execution contexts, one for each optimization profile."""
        return len(self._contexts)

    def dtype(self, name: str) -> np.dtype:
        """Element type of a tensor.

        Raises:
            EngineError: The plan has no such tensor, or its type is none of the engines' contract.
        """
        if name not in self.inputs and name not in self.outputs:
            raise EngineError(f"the plan has no tensor {name}: build again")
        kinds = self._trt.DataType
        known = {kinds.FLOAT: np.float32, kinds.HALF: np.float16, kinds.INT32: np.int32}
        kind = self._engine.get_tensor_dtype(name)
        if kind not in known:
            raise EngineError(f"tensor {name} of the plan is {kind}: build again")
        return np.dtype(known[kind])

    def shape(self, name: str) -> Shape:
        """A tensor's shape; -1 where it is dynamic."""
        return tuple(self._engine.get_tensor_shape(name))

    def largest(self, name: str) -> Shape:
        """The largest shape of an input that some profile accepts, in each dimension."""
        shapes = [ranges[name].max for ranges in self._ranges]
        return tuple(max(sizes) for sizes in zip(*shapes, strict=True))

    def bind(self, shapes: Mapping[str, Shape], addresses: Mapping[str, int]) -> Any:
        """Tell the context of the right profile what the next launches read and write.

        Args:
            shapes: Of every input.
            addresses: Device pointers of every input and output.

        Returns:
            The context, for `launch`.

        Raises:
            EngineError: No profile accepts the shapes.
        """
        context = self._contexts[self._profile_for(shapes)]
        for name, shape in shapes.items():
            _require(context.set_input_shape(name, shape), f"shape {shape} of {name}")
        for name, address in addresses.items():
            _require(context.set_tensor_address(name, address), f"the address of {name}")
        return context

    def launch(self, context: Any) -> None:
        """Put one run of a bound context on the device's stream."""
        _require(context.execute_async_v3(self._device.stream_handle), "the launch")

    def _profile_for(self, shapes: Mapping[str, Shape]) -> int:
        for profile, ranges in enumerate(self._ranges):
            if all(ranges[name].accepts(shape) for name, shape in shapes.items()):
                return profile
        raise EngineError(
            f"no optimization profile of the plan accepts {dict(shapes)}; they accept "
            f"{[{name: ranges[name] for name in shapes} for ranges in self._ranges]}"
        )

    def _new_context(self, profile: int) -> Any:
        context = new_context(self._trt, self._engine)
        if context is None:
            raise EngineError(f"no room on the GPU for the plan's optimization profile {profile}")
        stream = self._device.stream_handle
        _require(context.set_optimization_profile_async(profile, stream), f"profile {profile}")
        return context

    def _input_range(self, name: str, profile: int) -> InputRange:
        smallest, _, largest = self._engine.get_tensor_profile_shape(name, profile)
        return InputRange(tuple(smallest), tuple(largest))

    def _is_input(self, name: str) -> bool:
        return bool(self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT)


def _require(accepted: bool, what: str) -> None:
    if not accepted:
        raise EngineError(f"TensorRT refused {what}; its log says why")


def _load_tensorrt() -> Any:
    try:
        import tensorrt
    except ImportError as error:
        raise EngineError(
            f"this build needs TensorRT, which cannot be imported ({error}): pip install tensorrt"
        ) from error
    return tensorrt
