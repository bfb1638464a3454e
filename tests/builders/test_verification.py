"""The gate of float32 engines: as far from float64 as rounding explains, and no fault passes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BartForConditionalGeneration

from builders.config import BuildConfig
from builders.export import export_decoder, export_encoder
from builders.pipeline import Source, load_source
from builders.verification import LOGITS_GATE, MAX_ERROR_RATIO, Verification, compare, logits_gate
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE
from kobart_runtime.model_runner import StepInputs, StepOutput
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner
from tests.conftest import MINI_CHECKPOINT

MakeCheckpoint = Callable[..., Path]
Fault = Callable[[BartForConditionalGeneration], None]
FACTORS = (1, 100, 1000)  # of the logits


@pytest.fixture(scope="module")
def tiny(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint({"d_model": 32, "encoder_layers": 2})


def scaled(checkpoint: Path, factor: float) -> Source:
    """A checkpoint whose logits are so many times as large, rounding errors and all."""
    source, _ = load_source(BuildConfig(checkpoint=str(checkpoint)))
    norm = source.checkpoint.model.model.decoder.layers[-1].final_layer_norm
    with torch.no_grad():
        norm.weight.mul_(factor)
        norm.bias.mul_(factor)
    return source


def compared(source: Source, folder: Path, fault: Fault | None = None) -> Verification:
    """Engines of a model with a fault, compared with the model without it."""
    model = copy.deepcopy(source.checkpoint.model)
    if fault:
        with torch.no_grad():
            fault(model)
    export_encoder(model, folder / ENCODER_FILE)
    export_decoder(model, folder / DECODER_FILE, source.shape.num_candidates)
    return run(source, OnnxRuntimeRunner(folder, source.shape))


def run(source: Source, runner: OnnxRuntimeRunner) -> Verification:
    return compare(source.checkpoint, runner, source.tokenizer, enforced=True)


def rounded_to_float16(model: BartForConditionalGeneration) -> None:
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())


def one_weight_rounded_to_float16(model: BartForConditionalGeneration) -> None:
    weight = model.model.decoder.layers[1].fc2.weight
    weight.copy_(weight.half().float())


def decoder_layers_swapped(model: BartForConditionalGeneration) -> None:
    layers = model.model.decoder.layers
    layers[0], layers[1] = layers[1], layers[0]


def encoder_layers_swapped(model: BartForConditionalGeneration) -> None:
    layers = model.model.encoder.layers
    layers[0], layers[1] = layers[1], layers[0]


def positions_shifted(model: BartForConditionalGeneration) -> None:
    table = model.model.decoder.embed_positions.weight
    table.copy_(table.roll(1, 0))


FAULTS = (
    rounded_to_float16,
    decoder_layers_swapped,
    encoder_layers_swapped,
    positions_shifted,
)


@pytest.mark.parametrize("factor", FACTORS)
def test_correct_engines_pass_whatever_size_the_logits_have(
    factor: int, tiny: Path, tmp_path: Path
) -> None:
    verification = compared(scaled(tiny, factor), tmp_path)
    assert verification.passed, verification.summary
    assert verification.gate == max(
        LOGITS_GATE, MAX_ERROR_RATIO * verification.pytorch_error_logits
    )
    # Far enough from the gate that another machine's order of additions does not reach it.
    assert verification.max_abs_error_logits < verification.gate / 2
    assert verification.max_abs_error_candidates < verification.gate / 2


def test_large_logits_fail_an_absolute_gate_although_their_engines_are_correct(
    tiny: Path, tmp_path: Path
) -> None:
    """Why the gate follows PyTorch's own error."""
    verification = compared(scaled(tiny, 1000), tmp_path)
    assert verification.max_abs_error_logits > LOGITS_GATE
    assert verification.passed


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_engines_fail_whatever_size_the_logits_have(
    fault: Fault, factor: int, tiny: Path, tmp_path: Path
) -> None:
    verification = compared(scaled(tiny, factor), tmp_path, fault)
    assert not verification.passed, verification.summary


@pytest.mark.parametrize("factor", FACTORS[1:])
def test_a_single_weight_in_float16_fails_as_soon_as_the_logits_show_it(
    factor: int, tiny: Path, tmp_path: Path
) -> None:
    """In this model it moves logits by 7e-5, which stays below the gate at their ordinary size."""
    assert not compared(scaled(tiny, factor), tmp_path, one_weight_rounded_to_float16).passed


class WrongMask(OnnxRuntimeRunner):
    """Lets each beam see an entry of another."""

    def step_feeds(self, cache: object, inputs: StepInputs) -> dict[str, np.ndarray]:
        mask = inputs.decoder_attention_mask.copy()
        mask[:, 0] |= mask[:, 1]
        return super().step_feeds(cache, replace(inputs, decoder_attention_mask=mask))  # type: ignore[arg-type]


class UnmaskedPadding(OnnxRuntimeRunner):
    """Encodes padding as if it were text."""

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> list[np.ndarray]:
        return super().encode(input_ids, np.ones_like(attention_mask))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("runner", [WrongMask, UnmaskedPadding])
def test_a_wrong_mask_fails(
    runner: type[OnnxRuntimeRunner], factor: int, tiny: Path, tmp_path: Path
) -> None:
    source = scaled(tiny, factor)
    assert compared(source, tmp_path).passed
    assert not run(source, runner(tmp_path, source.shape)).passed


class NotANumber(OnnxRuntimeRunner):
    """Gives one NaN among all logits."""

    def decode_step(self, cache: object, inputs: StepInputs, *, want_logits: bool) -> StepOutput:
        output = super().decode_step(cache, inputs, want_logits=want_logits)  # type: ignore[arg-type]
        assert output.logits is not None
        output.logits[0, 0, 5] = math.nan
        return output


def test_a_nan_fails(tiny: Path, tmp_path: Path) -> None:
    source = scaled(tiny, 1)
    compared(source, tmp_path)
    assert not run(source, NotANumber(tmp_path, source.shape)).passed


@pytest.mark.parametrize(
    ("pytorch_error", "gate"),
    [(0.0, 1e-4), (1e-5, 1e-4), (1e-3, 6e-3), (math.inf, 1e-4), (math.nan, 1e-4)],
)
def test_the_gate_follows_pytorchs_own_error_beyond_its_floor(
    pytorch_error: float, gate: float
) -> None:
    assert logits_gate(pytorch_error) == pytest.approx(gate)


def test_the_gate_of_kobart_mini_is_the_ordinary_one(mini_build: Path) -> None:
    source, _ = load_source(BuildConfig(checkpoint=str(MINI_CHECKPOINT)))
    verification = run(source, OnnxRuntimeRunner(mini_build / "kobart/1", source.shape))
    assert verification.passed
    assert verification.gate == LOGITS_GATE
    assert 0 < verification.pytorch_error_logits < LOGITS_GATE / MAX_ERROR_RATIO


def test_the_oracle_is_float64_and_the_checkpoint_stays_float32(tiny: Path, tmp_path: Path) -> None:
    """PyTorch's own float32 error is not 0, so that it was compared with something more exact."""
    source = scaled(tiny, 1)
    verification = compared(source, tmp_path)
    assert 1e-8 < verification.pytorch_error_logits < 1e-4
    dtypes = {parameter.dtype for parameter in source.checkpoint.model.parameters()}
    assert dtypes == {torch.float32}
