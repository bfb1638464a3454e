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
from typing import Any

import tensorrt as trt
from polygraphy.backend.trt import (
    CreateConfig,
    EngineBytesFromNetwork,
    NetworkFromOnnxPath,
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
from kobart_runtime.errors import BuildError, ConfigError

DEFAULT_WORKSPACE_BYTES = 1 << 30
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
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES  # scratch memory a layer may use
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
        if self.workspace_bytes < 1:
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
    typed = can_be_strongly_typed() and run is None
    flags: dict[str, bool] = {} if typed else _BUILDER_FLAGS[options.precision]
    cache = str(options.timing_cache) if options.timing_cache else None
    try:
        with G_LOGGER.verbosity(G_LOGGER.ERROR):
            plan = EngineBytesFromNetwork(
                NetworkFromOnnxPath(str(onnx_path), strongly_typed=typed),
                _create_config(profiles, options, flags, run),
                save_timing_cache=cache,
            )()
    except PolygraphyException as error:
        raise BuildError(f"TensorRT {trt.__version__} refused {onnx_path.name}: {error}") from error
    calibrated = run.finish() if run else None
    plan_path.write_bytes(plan)
    layers = _inspect(plan_path)
    plan_path.with_suffix(".layers.json").write_text(layers, encoding="utf-8")
    return PlanFacts(
        asked=options.precision,
        tensorrt=trt.__version__,
        strongly_typed=typed,
        builder_flags=tuple(flags),
        profiles=[{name: asdict(sizes) for name, sizes in p.items()} for p in profiles],
        layer_outputs=_count_types(layers),
        calibration=calibrated,
        build_seconds=round(time.monotonic() - started, 1),
    )


def _calibration_run(calibration: PlanCalibration, onnx_path: Path) -> CalibrationRun:
    check_calibrator()
    return CalibrationRun(calibration, calibration.cache_of(onnx_path, trt.__version__))


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
        memory_pool_limits={trt.MemoryPoolType.WORKSPACE: options.workspace_bytes},
        builder_optimization_level=options.optimization_level,
        version_compatible=options.version_compatible,
        sparse_weights=options.sparse_weights,
        profiling_verbosity=trt.ProfilingVerbosity.DETAILED,
        load_timing_cache=str(cache) if cache and cache.exists() else None,
        tactic_sources=None if sources is None else [trt.TacticSource[name] for name in sources],
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


def _polygraphy_profile(profile: Profile) -> PolygraphyProfile:
    converted = PolygraphyProfile()
    for name, sizes in profile.items():
        converted.add(name, min=sizes.min, opt=sizes.opt, max=sizes.max)
    return converted


def _inspect(plan_path: Path) -> str:
    """The engine inspector's JSON; it also proves that the plan can be opened again."""
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    runtime.engine_host_code_allowed = True  # we have just built it
    engine = runtime.deserialize_cuda_engine(plan_path.read_bytes())
    if engine is None:
        raise BuildError(f"TensorRT {trt.__version__} cannot open the {plan_path.name} it built")
    inspector = engine.create_engine_inspector()
    inspector.execution_context = _usual_context(engine)
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


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
