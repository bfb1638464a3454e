"""What a build accepts, and the messages of what it refuses; requests are in test_service.py."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from kobart_runtime.errors import ConfigError, InvalidArgumentError
from kobart_runtime.settings import SETTING_NAMES, GenerationSettings, Limits


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_are_above_zero(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be above 0, got {value}"):
        Limits(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        GenerationSettings(),
        GenerationSettings(num_beams=1, max_new_tokens=1),
        GenerationSettings(num_beams=8, max_new_tokens=256, min_new_tokens=10**9),
        GenerationSettings(no_repeat_ngram_size=0, repetition_penalty=1e-45),
        GenerationSettings(length_penalty=-3e38),
        GenerationSettings(no_repeat_ngram_size=2**31 - 1),
    ],
)
def test_edges_are_accepted(settings: GenerationSettings) -> None:
    settings.check(Limits())


def test_limits_of_the_build_count() -> None:
    settings = GenerationSettings(num_beams=3)
    settings.check(Limits(max_beams=3, max_target_length=128))
    with pytest.raises(InvalidArgumentError, match=r"num_beams must be 1\.\.2, got 3"):
        settings.check(Limits(max_beams=2))
    with pytest.raises(InvalidArgumentError, match=r"max_new_tokens must be 1\.\.127, got 128"):
        settings.check(Limits(max_target_length=127))


def test_override_replaces_what_is_given_and_nothing_else() -> None:
    defaults = GenerationSettings(num_beams=5, length_penalty=0.5)
    changed = defaults.override({"num_beams": 2, "early_stopping": False})
    assert changed == GenerationSettings(num_beams=2, length_penalty=0.5, early_stopping=False)
    assert defaults.override({}) == defaults


def test_override_names_all_that_is_unknown_and_all_that_is_valid() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        GenerationSettings().override({"top_p": 0.9, "beams": 3, "num_beams": 2})
    assert (
        str(caught.value) == f"unknown setting beams, top_p: valid are {', '.join(SETTING_NAMES)}"
    )


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        GenerationSettings().num_beams = 3  # type: ignore[misc]
