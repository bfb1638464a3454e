"""How an int8 build on CPUs keeps cross-attention keys and values: as floats, or as int8.

int8 is taken where its decode steps are known to be faster, or are timed to be, and the engines
still pass the gate. Where both are timed, it is on one batch of the build's documents, a token of
each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from builders.agreement import Teacher
from builders.choosing import AS_ASKED, Policy, cross_kv, settle
from builders.cross_kv import channel_scales, quantize_decoder, quantize_encoder, write_to_float
from builders.timing import MAX_DOCUMENTS, best_ms
from calibration.documents import DocumentSet
from calibration.feeds import Step, forced_steps
from kobart_runtime.float_kv_encoder import FloatKvEncoder
from kobart_runtime.model_config import (
    CROSS_FLOAT_FILE,
    CROSS_INT8_FILES,
    DECODER_FILE,
    ENCODER_FILE,
    EngineConfig,
)
from kobart_runtime.model_runner import ModelRunner
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner
from kobart_runtime.runners import open_encoder, open_runner

NUM_CALLS = 20  # of the timed step in each round


@dataclass(frozen=True, kw_only=True)
class CrossKvChoice:
    """How cross-attention K/V are kept and why; stands in the manifest."""

    kept: str  # "float" or "int8"
    reason: str
    fell_back: bool = False  # int8 was to be taken, and is below the accuracy gate
    step_ms: dict[str, float] = field(default_factory=dict)  # kept -> decode step, if timed
    # Shares of equal tokens, 0..1; None: int8 was not tried. The engine models have floats.
    float_agreement: float | None = None
    int8_agreement: float | None = None

    @property
    def agreement(self) -> float | None:
        """The lowest of what is delivered; None: not taken."""
        if self.kept == "float" or self.float_agreement is None or self.int8_agreement is None:
            return self.float_agreement
        return min(self.float_agreement, self.int8_agreement)


def write_int8(folder: Path, engines: EngineConfig, documents: DocumentSet) -> None:
    """Write the graphs of int8 K/V beside those of float K/V, and the one that turns them back.

    Args:
        folder: Holds the float ones, the decoder not yet laid out for CPUs.
        engines: What runs them.
        documents: What the scales are taken from.

    Raises:
        BuildError: A graph does not have the form that it is exported in.
        EngineError: The encoder cannot be loaded or run.
    """
    scales = channel_scales(open_encoder(folder, engines), documents.documents, engines.shape)
    encoder, decoder = CROSS_INT8_FILES
    quantize_encoder(folder / ENCODER_FILE, folder / encoder, scales)
    quantize_decoder(folder / DECODER_FILE, folder / decoder, scales)
    write_to_float(folder / CROSS_FLOAT_FILE, scales)


def tries_int8(asked: str, policy: Policy) -> bool:
    """Whether int8 graphs are made at all.

    Args:
        asked: The build's `cross_kv`.
        policy: What to choose by if that is "auto".
    """
    if asked == "auto":
        return policy.tune or cross_kv(policy.processor).taken == "int8"
    return asked == "int8"


def keep_floats(asked: str, policy: Policy) -> CrossKvChoice:
    """The choice where int8 is not tried."""
    reason = cross_kv(policy.processor).reason if asked == "auto" else AS_ASKED
    return CrossKvChoice(kept="float", reason=reason)


def choose_cross_kv(
    asked: str,
    policy: Policy,
    folder: Path,
    engines: EngineConfig,
    documents: DocumentSet,
    teacher: Teacher,
) -> CrossKvChoice:
    """Decide, and delete the int8 graphs if they are not taken.

    Args:
        asked: The build's `cross_kv`: "int8", or "auto".
        policy: What to choose by if that is "auto".
        folder: Holds the graphs of both.
        engines: What runs them.
        documents: What is decoded if it is timed.
        teacher: The checkpoint's choices, to compare with.

    Raises:
        EngineError: An engine cannot be loaded or run.
    """
    runners = {
        kept: open_runner(folder, replace(engines, cross_kv=kept)) for kept in ("float", "int8")
    }
    int8_agreement = teacher.agreement_of(runners["int8"])
    times = step_ms(runners, documents) if policy.tune else {}
    choice = settle(
        asked,
        cross_kv(policy.processor),
        times,
        "decode step",
        int8_agreement,
        policy.gate,
        default="float",
    )
    floats = runners["float"]
    if choice.taken == "int8":
        floats = open_engine_models(folder, engines)
    else:
        for name in (*CROSS_INT8_FILES, CROSS_FLOAT_FILE):
            (folder / name).unlink()
    return CrossKvChoice(
        kept=choice.taken,
        reason=choice.reason,
        fell_back=choice.fell_back,
        step_ms=times,
        float_agreement=teacher.agreement_of(floats),
        int8_agreement=int8_agreement,
    )


def open_engine_models(folder: Path, engines: EngineConfig) -> ModelRunner:
    """The engine models' encoder and decoder of a build that keeps int8 K/V.

    Raises:
        EngineError: An engine cannot be loaded or run.
    """
    int8 = replace(engines, cross_kv="int8")
    encoder = FloatKvEncoder(open_encoder(folder, int8), folder / CROSS_FLOAT_FILE, engines.shape)
    return OnnxRuntimeRunner(folder, engines.shape, encoder=encoder)


def step_ms(runners: Mapping[str, ModelRunner], documents: DocumentSet) -> dict[str, float]:
    """Milliseconds of a decode step of one batch: the best of some rounds, taken in turn.

    Args:
        runners: Name -> engines.
        documents: The batch is a sample of them.
    """
    batch = documents.sample(MAX_DOCUMENTS).documents
    steps = {name: next(forced_steps(batch, runner)) for name, runner in runners.items()}
    times = best_ms({name: partial(_repeat, runners[name], step) for name, step in steps.items()})
    return {name: round(ms / NUM_CALLS, 2) for name, ms in times.items()}


def _repeat(runner: ModelRunner, step: Step) -> None:
    for _ in range(NUM_CALLS):
        runner.decode_step(step.cache, step.inputs, want_logits=False)
