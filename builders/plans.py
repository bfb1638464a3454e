"""The TensorRT part of a build: verified graphs -> plans -> comparison with PyTorch on the GPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from builders.agreement import MAX_DOCUMENTS
from builders.config import BuildConfig
from builders.gpu import Gpu
from builders.plan_calibration import PlanCalibration
from builders.plan_facts import PlanFacts
from builders.plan_feeds import plan_calibrations
from builders.precision import AGREEMENT_GATES
from builders.profiles import Profile, decoder_profiles, encoder_profiles
from builders.repository import Layout
from builders.verification import NUM_BEAMS, Verification, compare
from builders.workspace import MIB
from calibration.scales import GRAPH_FILES
from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import ENGINE_FILES, EngineConfig, ModelShape
from kobart_runtime.runners import open_runner
from kobart_runtime.settings import Limits

if TYPE_CHECKING:
    from builders.engine import EngineOptions
    from builders.pipeline import Source
    from builders.steps import Steps

TIMING_CACHE = ".tensorrt-timing.cache"  # beside the builds; TensorRT checks whose timings it has
SPARSE_STEP = "2:4"  # the pruning that TensorRT's sparse kernels are for


@dataclass(frozen=True, kw_only=True)
class Plans:
    """The two plans of a build, and how they compare with PyTorch."""

    facts: dict[str, PlanFacts]  # by file name
    gpu: Gpu | None  # where they ran; None: on no GPU
    verification: Verification

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "verified_on_gpu": self.gpu is not None and self.verification.passed,
            "verification": asdict(self.verification),
            "int8_by": self.int8_by,
            "plans": {
                name: {"precision": facts.precision, **asdict(facts)}
                for name, facts in self.facts.items()
            },
        }

    @property
    def int8_by(self) -> str | None:
        """TensorRT's calibrator, if it found the int8 ranges; else the graph holds them."""
        calibrated = [facts.calibration for facts in self.facts.values() if facts.calibration]
        return calibrated[0].calibrator if calibrated else None


def check_tensorrt_calibrates() -> None:
    """Refuse early what the installed TensorRT cannot do.

    Raises:
        ConfigError: It has no calibrator of its own.
    """
    from builders.engine import check_calibrator  # needs TensorRT

    check_calibrator()


def make_plans(
    layout: Layout, config: BuildConfig, source: Source, gpu: Gpu | None, step: Steps
) -> Plans:
    """Put plans in the place of a build's ONNX graphs, and run them.

    Args:
        layout: The front model's folder holds the graphs, which have passed their gate.
        config: What was asked for.
        source: What the graphs come from.
        gpu: Where the plans will run.
        step: Announces what is done.

    Raises:
        BuildError: TensorRT refused a graph.
        EngineError: A plan cannot be opened or run.
    """
    from builders.engine import build_plan  # needs TensorRT

    names = ENGINE_FILES["tensorrt"]
    with step("build the TensorRT plans"):
        profiles = all_profiles(source.shape, source.limits)
        options = engine_options(config)
        calibrations = _calibrations(layout, config, source)
        facts = {
            name: build_plan(layout.front / graph, layout.front / name, wanted, options, calibrated)
            for name, graph, wanted, calibrated in zip(
                names, GRAPH_FILES, profiles, calibrations, strict=True
            )
        }
    check_precision(facts, config.precision)
    for graph in GRAPH_FILES:
        (layout.front / graph).unlink()
    with step("compare the plans with PyTorch"):
        verification = _compare(layout, config, source)
    return Plans(facts=facts, gpu=gpu, verification=verification)


def all_profiles(shape: ModelShape, limits: Limits) -> tuple[list[Profile], list[Profile]]:
    """The encoder's and the decoder's profiles, wide enough for the comparison as well."""
    accepted = replace(
        limits,
        max_batch_size=max(limits.max_batch_size, MAX_DOCUMENTS),
        max_beams=max(limits.max_beams, NUM_BEAMS),
    )
    return encoder_profiles(accepted), decoder_profiles(shape, accepted)


def engine_options(config: BuildConfig) -> EngineOptions:
    """How the plans are built."""
    from builders.engine import EngineOptions

    return EngineOptions(
        precision=config.precision,
        workspace_bytes=config.workspace_mib and config.workspace_mib * MIB,
        optimization_level=config.optimization_level,
        version_compatible=config.version_compatible,
        hardware_compatible=config.hardware_compatible,
        sparse_weights=SPARSE_STEP in (config.prune or ()),
        timing_cache=config.output_folder.parent / TIMING_CACHE,
    )


def _calibrations(
    layout: Layout, config: BuildConfig, source: Source
) -> tuple[PlanCalibration | None, PlanCalibration | None]:
    """What TensorRT calibrates the encoder's and the decoder's plan with, if it is to."""
    if not config.calibrated_by_tensorrt:
        return None, None
    assert source.documents
    caches = config.output_folder.parent
    return plan_calibrations(layout.front, source.shape, source.documents, caches)


def check_precision(facts: dict[str, PlanFacts], asked: str) -> None:
    """A plan must compute in what was asked for.

    Raises:
        BuildError: TensorRT says that no layer of a plan does.
    """
    for name, plan in facts.items():
        if plan.precision not in (asked, None):
            raise BuildError(
                f"precision {asked} was asked for, TensorRT {plan.tensorrt} built {name} in "
                f"{plan.precision}: take --precision {plan.precision}"
            )


def _compare(layout: Layout, config: BuildConfig, source: Source) -> Verification:
    runner = open_runner(layout.front, EngineConfig(runtime=layout.runtime, shape=source.shape))
    enforced = source.checkpoint.trained and not config.force
    verification = compare(source.checkpoint, runner, source.tokenizer, enforced=enforced)
    if not source.teacher:
        return verification
    agreement, gate = source.teacher.agreement_of(runner), AGREEMENT_GATES[config.precision]
    return verification.gated_by_agreement(agreement, source.teacher.num_tokens, gate, None)
