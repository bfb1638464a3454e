"""ONNX -> TensorRT plan, through Polygraphy: the one file of the builders that knows TensorRT.

TensorRT 10 and 11 take the types from the graph (strongly typed); 8.6 cannot and needs builder
flags. Which of the two an installed TensorRT can is probed, never read from its version. A plan
that TensorRT calibrates itself is built with flags by every version that can. Imports numpy,
polygraphy and tensorrt alone beside this project, so that it runs where those are.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tensorrt as trt
from polygraphy.backend.trt import (
    CreateConfig,
    EngineBytesFromNetwork,
    PostprocessConfig,
)
from polygraphy.backend.trt import Profile as PolygraphyProfile
from polygraphy.exception import PolygraphyException
from polygraphy.logger import G_LOGGER

from builders.plan_calibration import PlanCalibration
from builders.plan_facts import MAX_OPTIMIZATION_LEVEL, PlanFacts
from builders.profiles import Profile
from builders.tensorrt_calibrator import NAME as CALIBRATOR
from builders.tensorrt_calibrator import CalibrationRun
from builders.workspace import workspace_remedy
from kobart_runtime.bindings import is_kv
from kobart_runtime.errors import BuildError, ConfigError
from kobart_runtime.tensorrt_scratch import scratch_bytes

_BUILDER_FLAGS: dict[str, dict[str, bool]] = {
    "fp32": {},
    "fp16": {"fp16": True},
    "int8": {"fp16": True, "int8": True},  # its lookup tables are float16
}
# The inspector's words for types differ between versions.
_DATA_TYPE = re.compile(r"FP32|FP16|BF16|INT8|INT32|INT64|BOOL|HALF|FLOAT16|FLOAT", re.IGNORECASE)
_SAME_TYPE = {"half": "fp16", "float16": "fp16", "float": "fp32"}


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a plan is built."""

    precision: str = "fp32"  # of the graph
    workspace_bytes: int | None = None  # scratch memory a layer may use; None: what it wants
    optimization_level: int = 3  # 0..5: build time for speed
    version_compatible: bool = False  # runs on later TensorRT versions too
    hardware_compatible: bool = False  # runs on every GPU since Ampere
    sparse_weights: bool = False  # use 2:4 sparsity where the weights have it
    timing_cache: Path | None = None  # kept between builds
    tactic_sources: tuple[str, ...] | None = None  # libraries with kernels; None: TensorRT's choice

    def __post_init__(self) -> None:
        if self.precision not in _BUILDER_FLAGS:
            raise ConfigError(
                f"precision must be one of {', '.join(_BUILDER_FLAGS)}, got {self.precision!r}"
            )
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise ConfigError(f"workspace must be above 0 bytes, got {self.workspace_bytes}")
        if not 0 <= self.optimization_level <= MAX_OPTIMIZATION_LEVEL:
            raise ConfigError(
                f"optimization_level must be 0..{MAX_OPTIMIZATION_LEVEL}, "
                f"got {self.optimization_level}"
            )
        known = trt.TacticSource.__members__
        for source in self.tactic_sources or ():
            if source not in known:
                raise ConfigError(f"tactic source {source!r} is none of {', '.join(known)}")


def can_be_strongly_typed() -> bool:
    """Whether the installed TensorRT takes the types from the graph."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def check_calibrator() -> None:
    """Refuse to let TensorRT calibrate where it cannot.

    Raises:
        ConfigError: The installed TensorRT has no calibrator.
    """
    if not hasattr(trt, CALIBRATOR):
        raise ConfigError(
            f"TensorRT {trt.__version__} has no {CALIBRATOR}, which was removed in version 11: "
            "take --int8-calibrator qdq, or TensorRT 8.6 or 10"
        )


def build_plan(
    onnx_path: Path,
    plan_path: Path,
    profiles: Sequence[Profile],
    options: EngineOptions,
    calibration: PlanCalibration | None = None,
) -> PlanFacts:
    """Build a plan and write it, and `<plan>.layers.json` with the inspector's account of it.

    Args:
        onnx_path: The graph; a float32 one if TensorRT is to calibrate it.
        plan_path: The file to write.
        profiles: Shapes that the plan will take.
        options: How to build.
        calibration: What TensorRT calibrates with; None takes types and scales of the graph.

    Raises:
        BuildError: TensorRT refused the graph, or could not build it.
        ConfigError: TensorRT is to calibrate and cannot.
    """
    started = time.monotonic()
    run = _calibration_run(calibration, onnx_path) if calibration else None
    errors: list[str] = []
    typed = can_be_strongly_typed() and run is None
    flags: dict[str, bool] = {} if typed else _BUILDER_FLAGS[options.precision]
    cache = str(options.timing_cache) if options.timing_cache else None
    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
            plan = EngineBytesFromNetwork(
                _parse(onnx_path, typed, errors),
                _create_config(profiles, options, flags, run),
                save_timing_cache=cache,
            )()
    except PolygraphyException as error:
        reason = workspace_remedy(errors) or "; ".join(errors) or error
        raise _refusal(onnx_path, reason) from error
    calibrated = run.finish() if run else None
    plan_path.write_bytes(plan)
    inspected = _inspect(plan_path)
    layers_path = plan_path.with_suffix(".layers.json")
    layers_path.write_text(inspected.layers, encoding="utf-8")
    return PlanFacts(
        asked=options.precision,
        tensorrt=trt.__version__,
        strongly_typed=typed,
        builder_flags=tuple(flags),
        profiles=[{name: asdict(sizes) for name, sizes in p.items()} for p in profiles],
        layer_outputs=_count_types(inspected.layers),
        kv_precision=inspected.kv_precision,
        scratch_bytes=inspected.scratch_bytes,
        calibration=calibrated,
        build_seconds=round(time.monotonic() - started, 1),
    )


def _calibration_run(calibration: PlanCalibration, onnx_path: Path) -> CalibrationRun:
    check_calibrator()
    return CalibrationRun(calibration, calibration.cache_of(onnx_path, trt.__version__))


def _parse(onnx_path: Path, typed: bool, errors: list[str]) -> tuple[Any, Any, Any]:
    """Read a graph; what TensorRT logs as errors, now and in the build, goes to `errors`.

    Returns:
        Builder, network and parser, which must all live until the build is done.

    Raises:
        BuildError: TensorRT's parser refused it.
    """
    logger = _error_log(errors)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        found = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise _refusal(onnx_path, "; ".join(found or errors))
    return builder, network, parser


def _network_flags(typed: bool) -> int:
    kinds = trt.NetworkDefinitionCreationFlag.__members__
    wanted = ["EXPLICIT_BATCH", *(["STRONGLY_TYPED"] if typed else [])]
    return sum(1 << int(kinds[name]) for name in wanted if name in kinds)


def _error_log(errors: list[str]) -> Any:
    """A logger for TensorRT that keeps errors and drops the rest."""

    class ErrorLog(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # without it the bindings' base class is not there

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(msg)

    return ErrorLog()


def _refusal(onnx_path: Path, reason: object) -> BuildError:
    return BuildError(f"TensorRT {trt.__version__} refused {onnx_path.name}: {reason}")


def _create_config(
    profiles: Sequence[Profile],
    options: EngineOptions,
    flags: dict[str, bool],
    run: CalibrationRun | None,
) -> CreateConfig | PostprocessConfig:
    compatible = {}
    if options.hardware_compatible:
        compatible["hardware_compatibility_level"] = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    cache, sources = options.timing_cache, options.tactic_sources
    config = CreateConfig(
        profiles=[_polygraphy_profile(profile) for profile in profiles],
        memory_pool_limits=_memory_pools(options),
        builder_optimization_level=options.optimization_level,
        version_compatible=options.version_compatible,
        sparse_weights=options.sparse_weights,
        profiling_verbosity=trt.ProfilingVerbosity.DETAILED,
        load_timing_cache=str(cache) if cache and cache.exists() else None,
        # The bindings' enums cannot be subscripted.
        tactic_sources=sources and [trt.TacticSource.__members__[name] for name in sources],
        calibrator=run.calibrator() if run else None,
        **flags,
        **compatible,
    )
    if run is None:
        return config
    shapes = _polygraphy_profile(run.calibration.profile)

    def set_shapes(builder: Any, network: Any, made: Any) -> None:
        # Polygraphy would calibrate with the last profile, whose batches are far too large.
        made.set_calibration_profile(shapes.to_trt(builder, network))

    return PostprocessConfig(config, set_shapes)


def _memory_pools(options: EngineOptions) -> dict[Any, int] | None:
    """Limits of the builder; None leaves it what it has."""
    if options.workspace_bytes is None:
        return None
    return {trt.MemoryPoolType.WORKSPACE: options.workspace_bytes}


def _polygraphy_profile(profile: Profile) -> PolygraphyProfile:
    converted = PolygraphyProfile()
    for name, sizes in profile.items():
        converted.add(name, min=sizes.min, opt=sizes.opt, max=sizes.max)
    return converted


class _Inspected(NamedTuple):
    """What an open plan says of itself."""

    layers: str  # the engine inspector's JSON
    kv_precision: str | None  # of keys and values at the border, if the plan has some
    scratch_bytes: tuple[int, ...]  # by profile


def _inspect(plan_path: Path) -> _Inspected:
    """Open a plan again, which proves that it can be."""
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    runtime.engine_host_code_allowed = True  # we have just built it
    engine = runtime.deserialize_cuda_engine(plan_path.read_bytes())
    if engine is None:
        raise BuildError(f"TensorRT {trt.__version__} cannot open the {plan_path.name} it built")
    inspector = engine.create_engine_inspector()
    inspector.execution_context = _usual_context(engine)
    layers = str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return _Inspected(layers, _kv_precision(engine), scratch_bytes(engine))


def _kv_precision(engine: Any) -> str | None:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    kinds = {engine.get_tensor_dtype(name) for name in names if is_kv(name)}
    if not kinds:
        return None
    return "fp16" if kinds == {trt.DataType.HALF} else "fp32"


def _usual_context(engine: Any) -> Any:
    """A context with the first profile's usual shapes: without shapes no types are told."""
    context = engine.create_execution_context()
    if context is None:
        raise BuildError("no room on the GPU to open the plan that was built")
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    for name in names:
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            context.set_input_shape(name, engine.get_tensor_profile_shape(name, 0)[1])
    return context


def _count_types(layers: str) -> dict[str, int]:
    """Element types of all layers' outputs; empty where the inspector does not tell them."""
    found: Counter[str] = Counter()
    for layer in json.loads(layers).get("Layers", []):
        outputs: list[Any] = layer.get("Outputs", []) if isinstance(layer, dict) else []
        for output in outputs:
            match = _DATA_TYPE.search(str(output.get("Format/Datatype", "")))
            if match:
                kind = match[0].lower()
                found[_SAME_TYPE.get(kind, kind)] += 1
    return dict(found)
