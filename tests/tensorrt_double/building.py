"""The builder's half of the double: network, profiles, configuration, serialized engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from onnx import TensorProto

from tests.tensorrt_double.calibrating import calibrate
from tests.tensorrt_double.configuring import configuration_class
from tests.tensorrt_double.cuda_runtime import CudaRuntimeDouble
from tests.tensorrt_double.enums import make_enum, mask_of
from tests.tensorrt_double.operators import unsupported
from tests.tensorrt_double.plan import Plan, Shape, graph_tensors, load_graph, scratch_of
from tests.tensorrt_double.violation import require

SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")


def building_classes(trt: Any, major: str, cuda: CudaRuntimeDouble) -> list[type]:
    """Doubles of the builder's classes over one module `trt`, whose enums they use."""

    severity = make_enum("Severity", {name: i for i, name in enumerate(SEVERITIES)})

    class ILogger:
        Severity = severity
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = severity.__members__.values()

        def __init__(self) -> None:
            pass

        def log(self, severity: Any, msg: str) -> None:
            pass

    class Logger:
        Severity = severity
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = severity.__members__.values()

        def __init__(self, min_severity: Any = severity.WARNING) -> None:
            require(isinstance(min_severity, severity), f"{min_severity!r} is no severity")

        def log(self, severity: Any, msg: str) -> None:
            pass

    class ITensor:
        def __init__(self, facts: Any) -> None:
            self._facts = facts

        @property
        def name(self) -> str:
            return str(self._facts.name)

        @property
        def shape(self) -> Shape:
            return tuple(self._facts.shape)

        @property
        def dtype(self) -> Any:
            return getattr(trt.DataType, self._facts.kind)

        @property
        def is_shape_tensor(self) -> bool:
            return False

    class ILayer:
        def __init__(self, node: onnx.NodeProto) -> None:
            self._node = node

        @property
        def name(self) -> str:
            return str(self._node.name)

        @property
        def type(self) -> Any:
            kinds = {"QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE"}
            return getattr(trt.LayerType, kinds.get(self._node.op_type, "ELEMENTWISE"))

        @property
        def precision_is_set(self) -> bool:
            return False

    class INetworkDefinition:
        def __init__(self, flags: int) -> None:
            self._flags = flags
            self._graph: onnx.ModelProto | None = None

        @property
        def num_inputs(self) -> int:
            return len(self._inputs())

        @property
        def num_outputs(self) -> int:
            return len(self._model().graph.output)

        @property
        def num_layers(self) -> int:
            return len(self._model().graph.node)

        def get_input(self, index: int) -> Any:
            return trt.ITensor(self._inputs()[index])

        def get_flag(self, flag: Any) -> bool:
            return bool(self._flags & 1 << int(flag))

        def __iter__(self) -> Iterator[Any]:
            return iter([trt.ILayer(node) for node in self._model().graph.node])

        def _inputs(self) -> list[Any]:
            return graph_tensors(self._model().graph.input)

        def _model(self) -> onnx.ModelProto:
            require(self._graph is not None, "asked for a network before an ONNX file was parsed")
            assert self._graph is not None
            return self._graph

        def _has_flag(self, name: str) -> bool:
            flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
            return flag is not None and bool(self._flags & 1 << int(flag))

    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            require(isinstance(network, trt.INetworkDefinition), f"{network!r} is no network")
            self._network = network
            self._errors: list[str] = []

        def parse_from_file(self, model: str) -> bool:
            graph = load_graph(model)
            self._errors = unsupported(graph, major)
            self._network._graph = graph
            return not self._errors

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> Any:
            return self._errors[index]

    class IOptimizationProfile:
        def __init__(self) -> None:
            self._shapes: dict[str, tuple[Shape, Shape, Shape]] = {}

        def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None:
            low, best, high = tuple(min), tuple(opt), tuple(max)
            sizes = list(zip(low, best, high, strict=True))
            require(all(0 <= a <= b <= c for a, b, c in sizes), f"{input}: {low} {best} {high}")
            self._shapes[input] = (low, best, high)

        def get_shape(self, input: str) -> Any:
            return list(self._shapes[input])

        def __bool__(self) -> bool:
            return bool(self._shapes)

    class ITimingCache:
        def __init__(self, content: bytes) -> None:
            self._content = content

        def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
            self._content += input_cache._content
            return True

        def serialize(self) -> Any:
            return trt.IHostMemory(self._content or b"timings")

    class IHostMemory(bytes):
        @property
        def nbytes(self) -> int:
            return len(self)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: Any) -> None:
            pass

    class Builder:
        def __init__(self, logger: Any) -> None:
            require(hasattr(logger, "log"), f"{logger!r} is no logger")
            self._logger = logger

        def create_network(self, flags: int = 0) -> Any:
            known = mask_of(trt.NetworkDefinitionCreationFlag)
            require(flags & ~known == 0, f"network flags {flags:b} are not all of this version")
            explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
            if major == "8":
                require(explicit is not None and flags & 1 << int(explicit), "explicit batch")
            return trt.INetworkDefinition(flags)

        def create_builder_config(self) -> Any:
            return trt.IBuilderConfig()

        def create_optimization_profile(self) -> Any:
            return trt.IOptimizationProfile()

        @property
        def platform_has_fast_fp16(self) -> bool:
            return True

        @property
        def platform_has_fast_int8(self) -> bool:
            return True

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            _check_types(trt, network, config)
            profiles = [profile._shapes for profile in config._profiles]
            _check_profiles(network, profiles)
            needed = scratch_of(network._model())
            limit = config._pools.get(trt.MemoryPoolType.WORKSPACE)
            if limit is not None and limit < needed:
                message = f"Error Code 2: OutOfMemory (Requested size was {needed} bytes.)"
                self._logger.log(severity.ERROR, message)
                return None
            cache = b""
            if getattr(config, "int8_calibrator", None) is not None:
                _check_profiles(network, [config._calibration_profile._shapes])
                cache = calibrate(trt, cuda, network, config)
            plan = Plan(
                version=trt.__version__,
                version_compatible=config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE),
                graph=network._model().SerializeToString(),
                profiles=profiles,
                flags=sorted(flag.name for flag in config._flags),
                settings={
                    "workspace": limit,
                    "optimization_level": config.builder_optimization_level,
                    "hardware": config.hardware_compatibility_level.name,
                    "verbosity": config.profiling_verbosity.name,
                    "strongly_typed": network._has_flag("STRONGLY_TYPED"),
                    "tactic_sources": [
                        name
                        for name, source in trt.TacticSource.__members__.items()
                        if config._tactic_sources & 1 << int(source)
                    ],
                    "calibration": cache,
                },
            )
            return trt.IHostMemory(plan.serialize())

    return [
        ILogger, Logger, ITensor, ILayer, INetworkDefinition, OnnxParser, IOptimizationProfile,
        ITimingCache, IHostMemory, configuration_class(trt), Builder,
    ]  # fmt: skip


def _check_types(trt: Any, network: Any, config: Any) -> None:
    """A strongly typed network takes its types from the graph, any other from builder flags."""
    typed = network._has_flag("STRONGLY_TYPED") or not hasattr(trt.BuilderFlag, "FP16")
    flags = {flag.name for flag in config._flags}
    if typed:
        require(not flags & {"FP16", "INT8"}, f"{flags} on a strongly typed network")
        return
    kinds = {tensor.data_type for tensor in network._model().graph.initializer}
    for kind, flag in ((TensorProto.FLOAT16, "FP16"), (TensorProto.INT8, "INT8")):
        require(kind not in kinds or flag in flags, f"the graph has {flag} weights, not the flag")


def _check_profiles(network: Any, profiles: list[dict[str, Any]]) -> None:
    inputs = {facts.name: facts.shape for facts in network._inputs()}
    for shapes in profiles:
        require(set(shapes) == set(inputs), f"a profile of {set(shapes)} for {set(inputs)}")
        for name, sizes in shapes.items():
            for given in sizes:
                require(len(given) == len(inputs[name]), f"{name} {given} for {inputs[name]}")
                fits = zip(given, inputs[name], strict=True)
                require(all(b in (-1, a) for a, b in fits), f"{name} {given} for {inputs[name]}")
    require(bool(profiles), "a network with dynamic inputs needs a profile")
