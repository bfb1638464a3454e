"""Weights: what is derived from what, what is refused, and that nothing is ever random."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BartForConditionalGeneration

from builders.checkpoint import Checkpoint, load_checkpoint
from builders.special_ids import IdOverrides
from kobart_runtime.errors import CheckpointError
from tests.builders.conftest import SIZES

MakeCheckpoint = Callable[..., Path]
EMBEDDINGS = {
    "model.shared.weight": 1.0,
    "model.encoder.embed_tokens.weight": 2.0,
    "model.decoder.embed_tokens.weight": 3.0,
    "lm_head.weight": 4.0,
}
STORED = [names for count in range(5) for names in combinations(EMBEDDINGS, count)]


def load(folder: Path | str) -> Checkpoint:
    return load_checkpoint(str(folder), IdOverrides())


def rewrite_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    kept = {key: value for key, value in config.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def as_bin(folder: Path, content: object) -> Path:
    """Give a checkpoint's weights as PyTorch writes them."""
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


@pytest.mark.parametrize("tied", [None, True, False])
def test_embeddings_are_those_of_transformers_or_refused_and_never_random(
    make_checkpoint: MakeCheckpoint, tied: bool | None
) -> None:
    """Every choice of stored embeddings; each one's values tell from which it was taken."""
    folder = make_checkpoint()
    rewrite_config(folder, tie_word_embeddings=tied)
    others = load_file(folder / "model.safetensors")
    del others["model.shared.weight"]
    shape = (SIZES["vocab_size"], SIZES["d_model"])
    for stored in STORED:
        tables = {name: torch.full(shape, EMBEDDINGS[name]) for name in stored}
        save_file({**others, **tables}, folder / "model.safetensors", metadata={"format": "pt"})
        # Derived from others only where they are tied.
        if len(stored) == len(EMBEDDINGS) or (stored and tied is not False):
            theirs = BartForConditionalGeneration.from_pretrained(folder)
            ours = load(folder).model
            for name in EMBEDDINGS:
                assert torch.equal(ours.get_parameter(name), theirs.get_parameter(name)), stored
                assert len(ours.get_parameter(name)[5].unique()) == 1, stored  # not random
        else:
            lacking = ", ".join(sorted(set(EMBEDDINGS) - set(stored)))
            with pytest.raises(CheckpointError) as refused:
                load(folder)
            assert f"lacks {4 - len(stored)} weights ({lacking}), which would be random" in str(
                refused.value
            )
            assert ("has tie_word_embeddings false" in str(refused.value)) == (tied is False)


def test_the_advice_for_untied_embeddings_works(make_checkpoint: MakeCheckpoint) -> None:
    folder = make_checkpoint()
    rewrite_config(folder, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match="or set it to true if they were trained as one"):
        load(folder)
    rewrite_config(folder, tie_word_embeddings=True)
    model = load(folder).model
    assert torch.equal(model.model.encoder.embed_tokens.weight, model.model.shared.weight)


def test_the_bias_of_the_logits_is_zero_where_it_is_not_stored(
    make_checkpoint: MakeCheckpoint,
) -> None:
    folder = make_checkpoint()
    change_weights(folder, lambda weights: weights.pop("final_logits_bias"))
    assert not load(folder).model.final_logits_bias.any()


def test_a_git_lfs_pointer_is_called_one(make_checkpoint: MakeCheckpoint) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 495612345\n"
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        folder = make_checkpoint()
        (folder / name).write_text(pointer, encoding="utf-8")
        with pytest.raises(
            CheckpointError,
            match=rf"{name} is a Git LFS pointer to a file of 495,612,345 bytes, which was not "
            rf"downloaded: run `git lfs pull` in {folder}$",
        ):
            load(folder)


class Code:
    """What a file must not be able to run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/kobart-test-code-was-run",)


def test_code_in_weights_is_neither_run_nor_is_it_advised(make_checkpoint: MakeCheckpoint) -> None:
    folder = make_checkpoint()
    as_bin(folder, {**load_file(folder / "model.safetensors"), "more": Code()})
    with pytest.raises(CheckpointError) as refused:
        load(folder)
    message = str(refused.value)
    assert "(pytorch_model.bin) hold posix.system, which is code and is not run" in message
    assert "weights_only" not in message
    assert "\n" not in message
    assert not Path("/tmp/kobart-test-code-was-run").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"not weights"),
        lambda folder: os.truncate(folder / "model.safetensors", 1000),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: as_bin(folder, {}).write_bytes(b"not weights at all"),
        lambda folder: as_bin(folder, {}).write_bytes(pickle.dumps({"weight": 1}, protocol=4)),
        lambda folder: os.truncate(as_bin(folder, {"weight": torch.zeros(1000)}), 2000),
    ],
    ids=["no safetensors", "cut safetensors", "none", "no pickle", "pickle", "cut bin"],
)
def test_damaged_weights_are_told_in_one_line(
    make_checkpoint: MakeCheckpoint, damage: Callable[[Path], object]
) -> None:
    folder = make_checkpoint()
    damage(folder)
    with pytest.raises(CheckpointError, match=r"the weights of .* cannot be loaded") as refused:
        load(folder)
    assert "\n" not in str(refused.value)
    assert "again" in str(refused.value)
    for foreign in ("weights_only", "ignore_mismatched_sizes", "torch.load"):
        assert foreign not in str(refused.value)


def test_weights_of_other_sizes_are_named_with_both_shapes(
    make_checkpoint: MakeCheckpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_checkpoint()
    rewrite_config(folder, encoder_ffn_dim=48)
    capsys.readouterr()
    with pytest.raises(
        CheckpointError,
        match=r"has model\.encoder\.layers\.0\.fc1\.bias of shape \[32\], by its config\.json it "
        r"must be \[48\] and 2 more: take the config\.json that was saved with the weights$",
    ):
        load(folder)
    assert "MISMATCH" not in capsys.readouterr().err  # transformers' report of many lines


def test_a_vocabulary_of_another_size_is_no_reason_for_random_rows(
    make_checkpoint: MakeCheckpoint,
) -> None:
    folder = make_checkpoint()
    rewrite_config(folder, vocab_size=164)
    with pytest.raises(CheckpointError, match=r"by its config\.json it must be \[.*164"):
        load(folder)


@pytest.mark.parametrize(
    ("steps", "shown"),
    [((500,), "checkpoint-500 in it has one"), ((500, 1000), "checkpoint-500, checkpoint-1000 in")],
)
def test_the_folder_above_a_trainers_checkpoints_names_the_newest(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, steps: tuple[int, ...], shown: str
) -> None:
    for step in steps:
        make_checkpoint().rename(tmp_path / f"checkpoint-{step}")
    with pytest.raises(CheckpointError, match=rf"has no config\.json, {shown}") as refused:
        load(tmp_path)
    named = str(refused.value).split("--checkpoint ")[1]
    assert named == str(tmp_path / f"checkpoint-{steps[-1]}")
    assert load(named).source == named
