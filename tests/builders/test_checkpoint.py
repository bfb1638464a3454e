"""Loading checkpoints: dimensions, tokenizers, and what is no servable checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders.checkpoint import RANDOM_CHECKPOINT, load_checkpoint
from builders.checkpoint_files import find_files
from builders.fit import model_shape
from builders.special_ids import IdOverrides
from kobart_runtime.errors import CheckpointError
from kobart_runtime.model_config import ModelShape, sha256_of
from kobart_runtime.settings import Limits
from tests.conftest import REPOSITORY

MakeCheckpoint = Callable[..., Path]
NO_OVERRIDES = IdOverrides()


def load(source: Path | str) -> Any:
    return load_checkpoint(str(source), NO_OVERRIDES)


def test_files_of_transformers_4_and_5(make_checkpoint: MakeCheckpoint) -> None:
    old_style = make_checkpoint({"num_beams": 5, "max_length": 33, "early_stopping": False})
    new_style = make_checkpoint({}, {"num_beams": 5, "max_length": 33, "early_stopping": False})
    for folder in (old_style, new_style):
        checkpoint = load(folder)
        defaults = checkpoint.defaults
        assert (defaults.num_beams, defaults.max_new_tokens) == (5, 32)
        assert defaults.early_stopping is False
        assert checkpoint.ids.decoder_start == 1


def test_the_model_is_float32_in_eval_mode_whatever_was_saved(
    make_checkpoint: MakeCheckpoint,
) -> None:
    folder = make_checkpoint({"dtype": "float16"})
    weights = load_file(folder / "model.safetensors")
    half = {name: tensor.half() for name, tensor in weights.items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    model = load(folder).model
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_files_are_stated_with_their_sha256(make_checkpoint: MakeCheckpoint) -> None:
    folder = make_checkpoint({}, {})
    names = ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"]
    assert load(folder).files == {name: sha256_of(folder / name) for name in names}


def test_shape_of_unequal_depths_and_an_extended_vocabulary(
    make_checkpoint: MakeCheckpoint,
) -> None:
    sizes = {"encoder_layers": 1, "decoder_layers": 3, "vocab_size": 30006}
    checkpoint = load(make_checkpoint({**sizes, "decoder_attention_heads": 4}))
    assert model_shape(checkpoint, Limits(max_beams=4)) == ModelShape(
        num_decoder_layers=3, num_heads=4, head_dim=4, vocab_size=30006, num_candidates=16
    )


def test_candidates_grow_with_the_eos_list_and_end_at_the_vocabulary(
    make_checkpoint: MakeCheckpoint,
) -> None:
    checkpoint = load(make_checkpoint({"eos_token_id": [1, 7, 8]}))
    assert model_shape(checkpoint, Limits(max_beams=4)).num_candidates == 32
    assert model_shape(checkpoint, Limits(max_beams=100)).num_candidates == 160


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mbart"}, "model_type 'mbart', it must be 'bart'"),
        ({"model_type": None}, "no model_type"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder False, it must be True"),
        ({"is_decoder": True}, "is_decoder true"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"do_sample": True}, "do_sample"),
    ],
)
def test_refused_configurations(
    make_checkpoint: MakeCheckpoint, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(make_checkpoint(changes))


def test_missing_weights_are_refused_instead_of_random(make_checkpoint: MakeCheckpoint) -> None:
    folder = make_checkpoint()
    weights = load_file(folder / "model.safetensors")
    del weights["model.decoder.layers.1.fc1.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 weights \(model.decoder.layers.1.fc1"):
        load(folder)


def test_damaged_weights_are_refused(make_checkpoint: MakeCheckpoint) -> None:
    folder = make_checkpoint()
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match=r"the weights of .* cannot be loaded"):
        load(folder)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_broken_json_is_refused(make_checkpoint: MakeCheckpoint, content: str) -> None:
    folder = make_checkpoint()
    (folder / "generation_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        find_files(str(folder))


@pytest.mark.parametrize(
    "source",
    [
        "/no/such/folder",
        "./nowhere",
        "../nowhere",
        "~/nowhere",
        "assets/nowhere",  # the parent is a folder here: a mistake in a path
        "assets/nowhere/at/all",
        "nowhere/at/all",
        "README.md",
        "organisation/name/",
    ],
)
def test_paths_that_do_not_exist_are_not_asked_of_the_hub(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr("builders.checkpoint_files.cached_file", pytest.fail)
    with pytest.raises(CheckpointError, match="is not a folder: --checkpoint wants a folder or a"):
        load(source)


def test_hub_ids_are_asked_of_the_hub(
    make_checkpoint: MakeCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's answers are played; its snapshot is a folder as any other."""
    folder, asked = make_checkpoint(), []

    def cached(source: str, name: str, **_: Any) -> str | None:
        asked.append((source, name))
        return str(folder / name) if (folder / name).is_file() else None

    monkeypatch.setattr("builders.checkpoint_files.cached_file", cached)
    assert find_files("organisation/name").folder == folder
    assert ("organisation/name", "config.json") in asked
    # Whatever would change what is built, or says that something is missing.
    assert {name for _, name in asked} >= {"adapter_config.json", "added_tokens.json"}


def test_a_folder_without_config_json(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load(tmp_path)


def test_a_hub_id_goes_through_transformers_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="cannot be read from the hub"):
        load("gogamza/no-such-kobart")


def test_random_full_size_kobart() -> None:
    checkpoint = load(RANDOM_CHECKPOINT)
    assert sum(parameter.numel() for parameter in checkpoint.model.parameters()) == 123_859_968
    assert not checkpoint.trained
    assert "assets/kobart-mini" in checkpoint.tokenizer_source
    again = load(RANDOM_CHECKPOINT)
    ours, theirs = checkpoint.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_shipped_checkpoint_loads() -> None:
    checkpoint = load("assets/kobart-mini")
    config = json.loads((checkpoint.tokenizer_path.parent / "config.json").read_text())
    assert checkpoint.ids.decoder_start == config["decoder_start_token_id"]
    assert checkpoint.trained
