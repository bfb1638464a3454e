"""The runtime's half of the double: engines, contexts, inspector."""

from __future__ import annotations

import json
import weakref
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tests.tensorrt_double.cuda_runtime import ALIGNMENT, CudaRuntimeDouble
from tests.tensorrt_double.inspecting import describe_layers
from tests.tensorrt_double.plan import Plan, Shape, TensorFacts, graph_tensors
from tests.tensorrt_double.violation import require

SCRATCHED = 0xAB  # what a launch leaves in its scratch memory, whoever else may have used it


def running_classes(trt: Any, cuda: CudaRuntimeDouble) -> list[type]:
    """Doubles of the runtime's classes over one module `trt` and one CUDA runtime."""
    strategies: Any = getattr(trt, "ExecutionContextAllocationStrategy", None)  # since 10

    class Runtime:
        def __init__(self, logger: Any) -> None:
            require(logger is not None, "a runtime needs a logger")
            self._host_code_allowed = False

        @property
        def engine_host_code_allowed(self) -> bool:
            return self._host_code_allowed

        @engine_host_code_allowed.setter
        def engine_host_code_allowed(self, allowed: bool) -> None:
            self._host_code_allowed = allowed

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
            plan = Plan.read(bytes(serialized_engine))
            if plan is None:
                return None
            if plan.version_compatible:
                return trt.ICudaEngine(plan) if self._host_code_allowed else None
            return trt.ICudaEngine(plan) if plan.version == trt.__version__ else None

    class ICudaEngine:
        def __init__(self, plan: Plan) -> None:
            self._plan = plan
            graph = onnx.load_from_string(plan.graph).graph
            self._inputs = {t.name: t for t in graph_tensors(graph.input)}
            self._tensors = {t.name: t for t in graph_tensors([*graph.input, *graph.output])}
            self._profiles_in_use: set[int] = set()
            self._num_contexts = 0
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self._session = onnxruntime.InferenceSession(
                plan.graph, options, ["CPUExecutionProvider"]
            )

        @property
        def num_io_tensors(self) -> int:
            return len(self._tensors)

        @property
        def num_optimization_profiles(self) -> int:
            return len(self._plan.profiles)

        @property
        def num_layers(self) -> int:
            return 1

        def get_tensor_name(self, index: int) -> str:
            return list(self._tensors)[index]

        def get_tensor_mode(self, name: str) -> Any:
            kind = "INPUT" if name in self._inputs else "OUTPUT"
            return getattr(trt.TensorIOMode, kind)

        def get_tensor_dtype(self, name: str) -> Any:
            return getattr(trt.DataType, self._tensors[name].kind)

        def get_tensor_shape(self, name: str) -> Shape:
            return self._tensors[name].shape

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Shape]:
            require(name in self._inputs, f"{name} is no input and has no profile")
            return list(self._plan.profiles[profile_index][name])

        @property
        def device_memory_size(self) -> int:
            return self._scratch_bytes()

        @property
        def device_memory_size_v2(self) -> int:
            return self._scratch_bytes()

        def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
            return self._plan.scratch_bytes(profile_index)

        if strategies is None:

            def create_execution_context(self) -> Any:
                return self._new_context(with_memory=True)

        else:

            def create_execution_context(  # type: ignore[misc]
                self, strategy: Any = strategies.STATIC
            ) -> Any:
                require(isinstance(strategy, strategies), f"{strategy!r} is no strategy")
                require(strategy != strategies.ON_PROFILE_CHANGE, "not in this double")
                return self._new_context(with_memory=strategy == strategies.STATIC)

        def create_execution_context_without_device_memory(self) -> Any:
            return self._new_context(with_memory=False)

        def _new_context(self, with_memory: bool) -> Any:
            self._num_contexts += 1
            context = trt.IExecutionContext(self, first=self._num_contexts == 1)
            if with_memory:  # the largest profile's, whichever the context is for
                size = self._scratch_bytes()
                context._scratch = (cuda.cudaMalloc(size)[1], size)
                weakref.finalize(context, cuda.cudaFree, context._scratch[0])
            return context

        def _scratch_bytes(self) -> int:
            return max(map(self._plan.scratch_bytes, range(len(self._plan.profiles))))

        def create_engine_inspector(self) -> Any:
            return trt.EngineInspector(self)

    class EngineInspector:
        def __init__(self, engine: Any) -> None:
            self._engine = engine
            self.execution_context: Any = None

        def get_engine_information(self, format: Any) -> str:
            require(isinstance(format, trt.LayerInformationFormat), f"{format!r} is no format")
            plan, context = self._engine._plan, self.execution_context
            has_shapes = context is not None and set(context._shapes) == set(self._engine._inputs)
            layers = describe_layers(plan, with_types=has_shapes)
            return json.dumps({"Layers": layers, "Bindings": list(self._engine._tensors)})

    class IExecutionContext:
        def __init__(self, engine: Any, first: bool) -> None:
            self._engine = engine
            self._profile: int | None = None
            self._shapes: dict[str, Shape] = {}
            self._addresses: dict[str, int] = {}
            self._settled: dict[str, Shape] = {}  # of the last launch outside a capture
            self._scratch: tuple[int, int] | None = None  # pointer, bytes
            if first:
                self._take_profile(0)

        @property
        def device_memory(self) -> Any:
            return self._scratch

        @device_memory.setter
        def device_memory(self, memory: int) -> None:
            self._take_scratch(memory, self._engine._scratch_bytes())

        def set_device_memory(self, memory: int, size: int) -> None:
            require(size >= self._engine._scratch_bytes(), f"{size} bytes of scratch memory")
            self._take_scratch(memory, size)

        def _take_scratch(self, memory: int, size: int) -> None:
            require(memory % ALIGNMENT == 0, f"scratch memory at {memory:#x} is not aligned")
            cuda.view(memory, size)
            self._scratch = (memory, size)

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            cuda.stream(stream_handle)
            if profile_index != self._profile:
                self._take_profile(profile_index)
                self._shapes, self._settled = {}, {}
            return True

        def set_input_shape(self, name: str, shape: Shape) -> bool:
            require(self._profile is not None, "a shape was set before a profile")
            require(name in self._engine._inputs, f"{name} is no input")
            low, _, high = self._engine._plan.profiles[self._profile][name]
            fits = len(shape) == len(low) and all(
                a <= b <= c for a, b, c in zip(low, shape, high, strict=True)
            )
            if fits:
                self._shapes[name] = tuple(shape)
            return fits

        def set_tensor_address(self, name: str, memory: int) -> bool:
            require(name in self._engine._tensors, f"the engine has no tensor {name}")
            require(memory % ALIGNMENT == 0, f"{name} at {memory:#x} is not aligned")
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            engine = self._engine
            missing = set(engine._inputs) - set(self._shapes)
            require(not missing, f"launched without the shapes of {sorted(missing)}")
            missing = set(engine._tensors) - set(self._addresses)
            require(not missing, f"launched without the addresses of {sorted(missing)}")
            require(stream_handle != 0, "launched on the default stream")
            require(self._scratch is not None, "launched without scratch memory")
            pointer, size = self._scratch or (0, 0)
            stream = cuda.stream(stream_handle)
            shapes, addresses = dict(self._shapes), dict(self._addresses)
            if stream.recorded is None:
                self._settled = shapes
            else:
                require(self._settled == shapes, "captured before a launch with these shapes")
            stream.put(lambda: cuda.view(pointer, size).fill(SCRATCHED))
            stream.put(lambda: _infer(cuda, engine, shapes, addresses))
            return True

        def _take_profile(self, profile: int) -> None:
            engine = self._engine
            require(0 <= profile < len(engine._plan.profiles), f"there is no profile {profile}")
            require(profile not in engine._profiles_in_use, f"profile {profile} is in use")
            engine._profiles_in_use.discard(self._profile)
            engine._profiles_in_use.add(profile)
            self._profile = profile

    return [Runtime, ICudaEngine, EngineInspector, IExecutionContext]


def _infer(
    cuda: CudaRuntimeDouble, engine: Any, shapes: dict[str, Shape], addresses: dict[str, int]
) -> None:
    """Run the graph on what lies at the inputs' addresses; write to the outputs'."""
    feeds = {
        name: _array(cuda, engine._inputs[name], shape, addresses[name])
        for name, shape in shapes.items()
    }
    names = [name for name in engine._tensors if name not in engine._inputs]
    for name, result in zip(names, engine._session.run(names, feeds), strict=True):
        target = _array(cuda, engine._tensors[name], result.shape, addresses[name])
        np.copyto(target, result)


def _array(cuda: CudaRuntimeDouble, facts: TensorFacts, shape: Shape, address: int) -> np.ndarray:
    num_bytes = int(np.prod(shape)) * np.dtype(facts.dtype).itemsize
    return cuda.view(address, num_bytes).view(facts.dtype).reshape(shape)
