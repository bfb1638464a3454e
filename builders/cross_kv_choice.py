"""How an int8 build on CPUs keeps cross-attention keys and values: as floats, or as int8.

int8 is taken where its decode steps are faster on this machine and the engines still pass the
gate. Both are timed on one batch of the build's documents, a token of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from builders.agreement import Teacher
from builders.choosing import faster_of_two
from builders.cross_kv import channel_scales, quantize_decoder, quantize_encoder
from builders.timing import MAX_DOCUMENTS, best_ms
from calibration.documents import DocumentSet
from calibration.feeds import Step, forced_steps
from kobart_runtime.model_config import CROSS_INT8_FILES, DECODER_FILE, ENCODER_FILE, EngineConfig
from kobart_runtime.model_runner import ModelRunner
from kobart_runtime.runners import open_encoder, open_runner

NUM_CALLS = 20  # of the timed step in each round


@dataclass(frozen=True, kw_only=True)
class CrossKvChoice:
    """How cross-attention K/V are kept and why; stands in the manifest."""

    kept: str  # "float" or "int8"
    reason: str
    step_ms: dict[str, float] = field(default_factory=dict)  # kept -> time of a decode step
    float_agreement: float | None = None  # share of equal tokens with the engine models, 0..1
    int8_agreement: float | None = None  # and with int8

    @property
    def agreement(self) -> float | None:
        """The lowest of what is delivered; None: not taken."""
        if self.kept == "float" or self.float_agreement is None or self.int8_agreement is None:
            return self.float_agreement
        return min(self.float_agreement, self.int8_agreement)


def write_int8(folder: Path, engines: EngineConfig, documents: DocumentSet) -> None:
    """Write the graphs of int8 K/V beside those of float K/V.

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


def choose_cross_kv(
    asked: str, folder: Path, engines: EngineConfig, documents: DocumentSet, teacher: Teacher
) -> CrossKvChoice:
    """Decide, and delete the int8 graphs if they are not taken.

    Args:
        asked: The build's `cross_kv`: "int8", or "auto".
        folder: Holds the graphs of both.
        engines: What runs them.
        documents: What is decoded.
        teacher: The checkpoint's choices, to compare with.

    Raises:
        EngineError: An engine cannot be loaded or run.
    """
    runners = {
        kept: open_runner(folder, replace(engines, cross_kv=kept)) for kept in ("float", "int8")
    }
    agreements = {kept: teacher.agreement_of(runner) for kept, runner in runners.items()}
    times = step_ms(runners, documents)
    kept, reason = faster_of_two(asked, agreements["int8"], times, "decode step")
    if kept == "float":
        for name in CROSS_INT8_FILES:
            (folder / name).unlink()
    return CrossKvChoice(
        kept=kept,
        reason=reason,
        step_ms=times,
        float_agreement=agreements["float"],
        int8_agreement=agreements["int8"],
    )


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
