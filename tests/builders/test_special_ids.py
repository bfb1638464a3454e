"""The two families of KoBART ids, and what each transformers version leaves out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BartForConditionalGeneration

from builders.checkpoint_files import CheckpointFiles, find_files
from builders.special_ids import IdOverrides, resolve_ids
from kobart_runtime.errors import CheckpointError, ConfigError
from kobart_runtime.model_config import TokenIds

NO_OVERRIDES = IdOverrides()


def files(config: dict[str, Any], generation: dict[str, Any] | None = None) -> CheckpointFiles:
    return CheckpointFiles(folder=Path(), config=config, generation_config=generation)


def keys(bos: int, start: int | None, forced: int | None) -> dict[str, Any]:
    return {
        "bos_token_id": bos,
        "eos_token_id": 1,
        "pad_token_id": 3,
        "decoder_start_token_id": start,
        "forced_eos_token_id": forced,
    }


FAMILIES = {
    "gogamza/kobart-base-v2": keys(1, 1, 1),
    "gogamza/kobart-base-v1": keys(0, 1, 1),
    "digit82/kobart-summarization": keys(0, 2, 2),
    "start and forced eos absent": keys(0, None, None),
}


@pytest.mark.parametrize("with_generation_config", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_that_generate_uses(
    family: str, with_generation_config: bool, make_checkpoint: Callable[..., Path]
) -> None:
    changes = FAMILIES[family]
    folder = make_checkpoint(changes, changes if with_generation_config else None)
    ids, _ = resolve_ids(find_files(str(folder)), NO_OVERRIDES, vocab_size=160)

    model: Any = BartForConditionalGeneration.from_pretrained(folder)
    source = torch.tensor([[7, 8, 9]])
    generated = model.generate(source, num_beams=1, max_new_tokens=4, min_new_tokens=4)[0]
    assert ids.decoder_start == generated[0]
    assert ids.forced_eos == model.generation_config.forced_eos_token_id
    assert ids.forced_eos is None or ids.forced_eos == generated[-1]
    assert (ids.bos, ids.eos, ids.pad) == (changes["bos_token_id"], (1,), 3)


def test_absent_start_and_forced_eos_are_warned_of_with_the_flag() -> None:
    _, warnings = resolve_ids(files(FAMILIES["start and forced eos absent"]), NO_OVERRIDES, 30000)
    start, forced = warnings
    assert "start from bos (0)" in start
    assert "--decoder-start-token-id 2" in start
    assert "--forced-eos-token-id 2" in forced


def test_generation_config_alone_counts_and_a_differing_config_is_named() -> None:
    config, generation = keys(0, 2, 2), keys(0, None, None)
    ids, warnings = resolve_ids(files(config, generation), NO_OVERRIDES, 30000)
    assert (ids.decoder_start, ids.forced_eos) == (0, None)
    assert len(warnings) == 2


def test_no_warning_where_nothing_is_in_doubt() -> None:
    for config in (keys(1, 1, 1), keys(0, 2, 2)):
        assert resolve_ids(files(config), NO_OVERRIDES, 30000)[1] == ()


def test_overrides_win_and_silence_the_warnings() -> None:
    overrides = IdOverrides(decoder_start=2, forced_eos=5)
    ids, warnings = resolve_ids(files(keys(0, None, None)), overrides, 30000)
    assert (ids.decoder_start, ids.forced_eos) == (2, 5)
    assert warnings == ()


def test_eos_may_be_a_list_and_one_id_lists_are_ids() -> None:
    config = {**keys(0, 2, 2), "eos_token_id": [1, 7], "forced_eos_token_id": [1]}
    ids, _ = resolve_ids(files(config), NO_OVERRIDES, 30000)
    assert ids == TokenIds(bos=0, eos=(1, 7), pad=3, decoder_start=2, forced_eos=1)


def test_pad_falls_back_to_eos_as_generate_does() -> None:
    ids, _ = resolve_ids(files({**keys(0, 2, 2), "pad_token_id": None}), NO_OVERRIDES, 30000)
    assert ids.pad == 1


def test_forced_bos_is_read_and_its_legacy_switch_warned_of() -> None:
    assert resolve_ids(files({**keys(0, 2, 2), "forced_bos_token_id": 0}), NO_OVERRIDES, 9)[
        0
    ] == TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2, forced_bos=0, forced_eos=2)
    legacy = {**keys(0, 2, 2), "force_bos_token_to_be_generated": True}
    assert "force_bos_token_to_be_generated" in resolve_ids(files(legacy), NO_OVERRIDES, 9)[1][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eos_token_id": None}, "names no eos_token_id"),
        ({"eos_token_id": []}, "names no eos_token_id"),
        ({"eos_token_id": "1"}, "eos_token_id must be an integer, got '1'"),
        ({"eos_token_id": [1, 30000]}, "eos id must be 0..29999, got 30000"),
        ({"decoder_start_token_id": None, "bos_token_id": None}, "give --decoder-start-token-id"),
        ({"decoder_start_token_id": [1, 2]}, "decoder_start_token_id must be one id"),
        ({"forced_eos_token_id": -1}, "forced_eos id must be 0..29999, got -1"),
        ({"pad_token_id": True}, "pad_token_id must be an integer, got True"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        resolve_ids(files({**keys(0, 2, 2), **changes}), NO_OVERRIDES, 30000)


def test_an_override_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--forced-eos-token-id must be 0\.\.29999, got 30000"):
        resolve_ids(files(keys(0, 2, 2)), IdOverrides(forced_eos=30000), 30000)
