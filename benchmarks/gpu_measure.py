"""All figures of one model: passes, decoding, summaries. What failed is told, never dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from benchmarks.decoding import FIRST_TEXT_ID, Case, Measurement, System, measure
from benchmarks.gpu_passes import build_pass, eager_pass, traced_pass
from benchmarks.gpu_quality import build_rouge, torch_rouge
from benchmarks.gpu_timing import Open, Timing, time_passes
from benchmarks.gpu_variants import Built, Model
from benchmarks.systems import OurRuntime, TorchGenerate
from builders.checkpoint import Checkpoint, load_checkpoint
from builders.measuring import Watch
from builders.special_ids import IdOverrides
from kobart_documents import read_pairs
from kobart_runtime.errors import KobartError

EAGER, TRACED = "PyTorch fp32", "PyTorch TorchScript fp32"
NUM_CANDIDATES = 32  # of the traced decode step: those of 8 beams and one eos


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured."""

    batch: int = 8
    source_len: int = 512
    iterations: int = 100
    warmup: int = 10
    new_tokens: int = 64
    repeats: int = 3  # of decoding
    test_documents: int = 100
    is_quick: bool = False  # by --quick: the report says so
    device: str = "cuda"


QUICK = Sizes(iterations=20, warmup=3, new_tokens=16, repeats=1, test_documents=20, is_quick=True)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system's figures."""

    name: str
    timing: Timing
    rouge_l: float | None = None
    gate: str | None = None  # how the build compared with PyTorch
    precision: dict[str, str | None] = field(default_factory=dict)  # plan -> what TensorRT says


@dataclass(frozen=True, kw_only=True)
class ModelFigures:
    """One model's tables."""

    name: str
    parameters: int
    trained: bool
    rows: list[Row]
    decode: list[Measurement]
    decode_failure: str | None = None


def measure_model(
    model: Model, builds: Sequence[Built], watch: Callable[[], Watch], sizes: Sizes
) -> ModelFigures:
    """Measure PyTorch and the builds of one model.

    Args:
        model: What was built.
        builds: Its variants, those that failed among them.
        watch: Makes what samples the GPU.
        sizes: How much to measure.
    """
    checkpoint = load_checkpoint(model.checkpoint, IdOverrides())
    timings = time_passes(
        _systems(checkpoint, builds, sizes), watch, sizes.iterations, sizes.warmup
    )
    rouge = _rouge(model, checkpoint, builds, sizes)
    rows = [Row(name=EAGER, timing=timings[EAGER], rouge_l=rouge.get(EAGER))]
    rows.append(Row(name=TRACED, timing=timings[TRACED]))
    rows += [_build_row(built, timings, rouge) for built in builds]
    decode, failure = _decode(checkpoint, builds, sizes)
    return ModelFigures(
        name=model.name,
        parameters=sum(parameter.numel() for parameter in checkpoint.model.parameters()),
        trained=model.test_documents is not None,
        rows=rows,
        decode=decode,
        decode_failure=failure,
    )


def _systems(checkpoint: Checkpoint, builds: Sequence[Built], sizes: Sizes) -> dict[str, Open]:
    ids = _sources(checkpoint, sizes)
    systems: dict[str, Open] = {
        EAGER: partial(eager_pass, checkpoint.model, ids, sizes.device),
        TRACED: partial(traced_pass, checkpoint.model, ids, sizes.device, NUM_CANDIDATES),
    }
    for built in builds:
        if built.folder:
            systems[built.name] = partial(build_pass, built.folder, ids)
    return systems


def _sources(checkpoint: Checkpoint, sizes: Sizes) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (sizes.batch, sizes.source_len)
    return rng.integers(FIRST_TEXT_ID, checkpoint.vocab_size, shape, dtype=np.int32)


def _build_row(built: Built, timings: dict[str, Timing], rouge: dict[str, float]) -> Row:
    if built.folder is None:
        return Row(name=built.name, timing=Timing(failure=f"not built: {built.failure}"))
    tensorrt: dict[str, Any] = built.manifest["built"]["tensorrt"]
    passed = "passed" if tensorrt["verification"]["passed"] else "not passed"
    agreement = tensorrt["verification"]["agreement"]
    error = tensorrt["verification"]["max_abs_error_logits"]
    alike = "" if agreement is None else f", {agreement:.2%} of tokens alike"
    return Row(
        name=built.name,
        timing=timings[built.name],
        rouge_l=rouge.get(built.name),
        gate=f"{passed}: logits within {error:.1e}{alike}",
        precision={name: plan["precision"] for name, plan in tensorrt["plans"].items()},
    )


def _rouge(
    model: Model, checkpoint: Checkpoint, builds: Sequence[Built], sizes: Sizes
) -> dict[str, float]:
    folders = {built.name: built.folder for built in builds if built.folder}
    if model.test_documents is None or not folders:
        return {}
    documents = read_pairs(model.test_documents, limit=sizes.test_documents).pairs
    torch = TorchGenerate(checkpoint, sizes.device)
    scores = {EAGER: torch_rouge(torch, next(iter(folders.values())), documents)}
    return scores | {name: build_rouge(folder, documents) for name, folder in folders.items()}


def _decode(
    checkpoint: Checkpoint, builds: Sequence[Built], sizes: Sizes
) -> tuple[list[Measurement], str | None]:
    """Tokens a second, greedy and with 4 beams; PyTorch's figures are the first."""
    cases = [
        Case(
            num_beams=beams,
            num_sources=sizes.batch,
            source_len=sizes.source_len,
            num_new_tokens=sizes.new_tokens,
            num_ids=checkpoint.vocab_size,
        )
        for beams in (1, 4)
    ]
    runtimes: list[OurRuntime] = []
    try:
        for built in builds:
            if built.folder:
                runtimes.append(OurRuntime(built.folder, built.name))
        systems: list[System] = [TorchGenerate(checkpoint, sizes.device), *runtimes]
        return [m for case in cases for m in measure(systems, case, sizes.repeats)], None
    except (KobartError, RuntimeError) as error:
        return [], f"{error}".splitlines()[0]
    finally:
        for runtime in runtimes:
            runtime.close()


def describe(figures: ModelFigures) -> dict[str, Any]:
    """As JSON values."""
    return asdict(figures)
