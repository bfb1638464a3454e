"""Where a build's defaults come from, and which settings of a checkpoint are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders.checkpoint_files import CheckpointFiles
from builders.generation_defaults import UNSUPPORTED, fit_defaults, resolve_defaults
from kobart_runtime.errors import CheckpointError
from kobart_runtime.settings import GenerationSettings, Limits


def resolve(
    config: dict[str, Any] | None = None,
    generation: dict[str, Any] | None = None,
    task: dict[str, Any] | None = None,
) -> GenerationSettings:
    tasks = {"task_specific_params": {"summarization": task}} if task else {}
    return resolve_defaults(
        CheckpointFiles(
            folder=Path(), config={**(config or {}), **tasks}, generation_config=generation
        )
    )


def test_nothing_said_gives_the_built_in_defaults() -> None:
    assert resolve() == GenerationSettings()
    assert resolve({"num_beams": None, "task_specific_params": None}) == GenerationSettings()


def test_each_setting_comes_from_the_first_file_that_sets_it() -> None:
    settings = resolve(
        config={"num_beams": 5, "length_penalty": 2, "no_repeat_ngram_size": 0},
        generation={"num_beams": 6, "repetition_penalty": None},
        task={"num_beams": 7, "length_penalty": 3.0, "repetition_penalty": 1.5},
    )
    assert (settings.num_beams, settings.length_penalty) == (6, 2.0)
    assert (settings.repetition_penalty, settings.no_repeat_ngram_size) == (1.5, 0)


def test_task_specific_params_as_in_ebanlee_kobart_summary_v3() -> None:
    task = {"length_penalty": 1.0, "max_length": 128, "min_length": 12, "num_beams": 4}
    assert resolve(task=task) == replace(
        GenerationSettings(), max_new_tokens=127, min_new_tokens=11, num_beams=4
    )


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ({"max_length": 100, "min_length": 30}, (99, 29)),
        ({"max_length": 100, "max_new_tokens": 50}, (50, 0)),
        ({"min_length": 0}, (128, 0)),
        ({"min_length": 30, "min_new_tokens": 4}, (128, 4)),
    ],
)
def test_lengths_count_the_decoder_start_token(
    generation: dict[str, Any], expected: tuple[int, int]
) -> None:
    settings = resolve(generation=generation)
    assert (settings.max_new_tokens, settings.min_new_tokens) == expected


def test_a_length_in_an_earlier_file_beats_new_tokens_in_a_later_one() -> None:
    assert resolve({"max_new_tokens": 50}, {"max_length": 100}).max_new_tokens == 99


OUTPUT_CHANGING = {
    "assistant_early_exit": 2,
    "bad_words_ids": [[5]],
    "begin_suppress_tokens": [5],
    "constraints": [{}],
    "diversity_penalty": 0.5,
    "do_sample": True,
    "dola_layers": "low",
    "encoder_no_repeat_ngram_size": 3,
    "encoder_repetition_penalty": 1.2,
    "exponential_decay_length_penalty": [10, 1.1],
    "force_words_ids": [[5]],
    "guidance_scale": 1.5,
    "max_time": 3.0,
    "num_beam_groups": 2,
    "num_return_sequences": 2,
    "penalty_alpha": 0.6,
    "prompt_lookup_num_tokens": 3,
    "remove_invalid_values": True,
    "renormalize_logits": True,
    "sequence_bias": [[[5], 1.0]],
    "stop_strings": ["."],
    "suppress_tokens": [5],
    "token_healing": True,
    "use_mtp": True,
    "watermarking_config": {"bias": 2.5},
    "early_stopping": "never",
}


def test_every_unsupported_setting_is_tried() -> None:
    assert set(OUTPUT_CHANGING) == {*UNSUPPORTED, "early_stopping"}


@pytest.mark.parametrize("name", OUTPUT_CHANGING)
@pytest.mark.parametrize("where", ["config", "generation", "task"])
def test_settings_that_would_change_the_output_are_refused_by_name(name: str, where: str) -> None:
    with pytest.raises(CheckpointError, match=f"sets {name} to .* not supported"):
        resolve(**{where: {name: OUTPUT_CHANGING[name]}})


def test_neutral_values_and_sampling_settings_are_accepted() -> None:
    neutral = {name: values[0] for name, values in UNSUPPORTED.items() if values}
    nulls = dict.fromkeys(UNSUPPORTED)
    sampling = {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "typical_p": 0.5, "min_p": 0.1}
    for settings in (neutral, nulls, sampling):
        assert resolve(generation=settings) == GenerationSettings()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_beams": "4"}, "sets num_beams to '4', it must be an integer"),
        ({"max_length": 10.5}, "sets max_length to 10.5"),
        ({"length_penalty": True}, "sets length_penalty to True"),
    ],
)
def test_wrong_types_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        resolve(generation=setting)


def test_defaults_above_a_limit_are_lowered_and_told() -> None:
    wanted = replace(GenerationSettings(), num_beams=12, max_new_tokens=511)
    fitted, notes = fit_defaults(wanted, Limits())
    assert (fitted.num_beams, fitted.max_new_tokens) == (8, 256)
    assert notes == (
        "the default num_beams is lowered from 12 to 8, this build's max_beams",
        "the default max_new_tokens is lowered from 511 to 256, this build's max_target_length",
    )


def test_defaults_within_the_limits_are_kept_silently() -> None:
    assert fit_defaults(GenerationSettings(), Limits()) == (GenerationSettings(), ())


def test_defaults_out_of_range_are_refused() -> None:
    with pytest.raises(CheckpointError, match="repetition_penalty must be a finite number above 0"):
        fit_defaults(replace(GenerationSettings(), repetition_penalty=0.0), Limits())
