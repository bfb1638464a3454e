"""Adapters: merged as peft merges them, never left out, and told of in the manifest."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BartForConditionalGeneration

from benchmarks.subjects import BuildFacts
from builders.build_all import main
from builders.checkpoint import load_checkpoint
from builders.special_ids import IdOverrides
from kobart_runtime.errors import CheckpointError
from kobart_runtime.model_config import sha256_of
from tests.builders.adapters import train

MakeCheckpoint = Callable[..., Path]
NO_OVERRIDES = IdOverrides()
IDS = torch.tensor([[7, 20, 31, 45, 9]])

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


@pytest.fixture(scope="module")
def base(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint()


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(base, tmp_path_factory.mktemp("adapter"))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    change(weights)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def merged_by_peft(base: Path, adapter: Path) -> BartForConditionalGeneration:
    model = BartForConditionalGeneration.from_pretrained(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()


@torch.no_grad()
def logits(model: BartForConditionalGeneration) -> torch.Tensor:
    return torch.as_tensor(model.eval()(input_ids=IDS, decoder_input_ids=IDS).logits)


def test_a_merged_checkpoint_is_what_peft_merges(base: Path, adapter: Path) -> None:
    ours = load_checkpoint(str(base), NO_OVERRIDES, adapter=str(adapter)).model
    theirs = merged_by_peft(base, adapter).state_dict()
    assert ours.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.state_dict().items())
    assert not torch.allclose(logits(ours), logits(load_checkpoint(str(base), NO_OVERRIDES).model))
    assert all(parameter.requires_grad for parameter in ours.parameters())  # it may be trained on


def test_a_build_is_of_the_merged_weights_and_its_manifest_names_the_adapter(
    base: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--checkpoint", str(base), "--adapter", str(adapter), "--runtime", "onnxruntime"]
    command += ["--output", str(tmp_path / "build"), "--max-beams", "4"]
    assert main([*command, "--force"]) == 0, capsys.readouterr().err
    manifest = json.loads((tmp_path / "build" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["checkpoint"]["adapter"] == {
        "source": str(adapter),
        "base": str(base),
        "files": {
            name: sha256_of(adapter / name)
            for name in ("adapter_config.json", "adapter_model.safetensors")
        },
    }
    assert manifest["verification"]["passed"]
    # What compares the build with PyTorch later makes the same model, and merges nothing twice.
    facts = BuildFacts.read(tmp_path / "build")
    again = load_checkpoint(str(base), NO_OVERRIDES, **facts.load_options(str(base)))
    assert torch.equal(logits(again.model), logits(merged_by_peft(base, adapter)))
    merged_by_peft(base, adapter).save_pretrained(tmp_path / "merged")
    shutil.copy(base / "tokenizer.json", tmp_path / "merged")
    assert "adapter" not in facts.load_options(str(tmp_path / "merged"))


def test_an_adapter_beside_the_weights_is_not_left_out(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    shutil.copytree(base, both)
    shutil.copytree(adapter, both, dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match=rf"give --adapter {both} to merge it"):
        load_checkpoint(str(both), NO_OVERRIDES)
    ours = load_checkpoint(str(both), NO_OVERRIDES, adapter=str(both)).model
    assert torch.equal(logits(ours), logits(merged_by_peft(base, adapter)))


def test_an_adapter_alone_names_its_base_and_how_to_give_both(base: Path, adapter: Path) -> None:
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(str(adapter), NO_OVERRIDES)
    assert str(refused.value) == (
        f"{adapter} holds an adapter alone, of {base} (base_model_name_or_path): give both, "
        f"--checkpoint {base} --adapter {adapter}"
    )
    words = str(refused.value).split()
    given = {flag: words[words.index(flag) + 1] for flag in ("--checkpoint", "--adapter")}
    loaded = load_checkpoint(given["--checkpoint"], NO_OVERRIDES, adapter=given["--adapter"])
    assert loaded.adapter


def test_an_adapter_of_another_base_is_refused(
    make_checkpoint: MakeCheckpoint, base: Path, adapter: Path, tmp_path: Path
) -> None:
    for sizes, message in (
        ({"decoder_layers": 3}, "lacks 8 weights"),
        ({"decoder_layers": 1}, "has, and the base not, 8 weights"),
        ({"d_model": 32}, "does not fit the checkpoint or is damaged .*size mismatch"),
    ):
        other = make_checkpoint(sizes)
        with pytest.raises(CheckpointError, match=message) as refused:
            load_checkpoint(str(other), NO_OVERRIDES, adapter=str(adapter))
        assert f"give --checkpoint its base, {base}" in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_merge_that_would_change_the_answers_is_refused(base: Path, tmp_path: Path) -> None:
    """The output embeddings are the input's too: merged, the change would reach both."""
    adapter = train(base, tmp_path, target_modules=["q_proj", "lm_head"])
    with pytest.raises(CheckpointError, match="cannot be merged: the logits differ by"):
        load_checkpoint(str(base), NO_OVERRIDES, adapter=str(adapter))


def test_output_embeddings_that_were_saved_whole_are_merged(base: Path, tmp_path: Path) -> None:
    adapter = train(base, tmp_path, modules_to_save=["lm_head"])
    ours = load_checkpoint(str(base), NO_OVERRIDES, adapter=str(adapter)).model
    assert torch.equal(logits(ours), logits(merged_by_peft(base, adapter)))
    assert not torch.equal(ours.lm_head.weight, ours.model.shared.weight)


def test_what_cannot_be_merged_is_refused(base: Path, tmp_path: Path) -> None:
    model = BartForConditionalGeneration.from_pretrained(base)
    config = peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3)
    peft.get_peft_model(model, config).save_pretrained(str(tmp_path))
    with pytest.raises(CheckpointError, match="adds inputs instead of changing weights"):
        load_checkpoint(str(base), NO_OVERRIDES, adapter=str(tmp_path))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "has no adapter_config.json"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "has no weights"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x"), "damaged"),
        (
            lambda folder: change_weights(folder, lambda weights: weights.popitem()),
            "lacks 1 weights",
        ),
        (
            lambda folder: (folder / "adapter_config.json").write_text('{"peft_type": "NEW"}'),
            "does not fit the checkpoint or is damaged",
        ),
    ],
    ids=["no folder", "no weights", "no safetensors", "a weight missing", "of an unknown kind"],
)
def test_damaged_adapters(
    base: Path,
    adapter: Path,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    message: str,
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(adapter, folder)
    spoil(folder)
    with pytest.raises(CheckpointError, match=message) as refused:
        load_checkpoint(str(base), NO_OVERRIDES, adapter=str(folder))
    assert "\n" not in str(refused.value)


def test_weights_with_an_adapter_inside_are_refused(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.encoder.layers.0.fc1.lora_A.default.weight"] = torch.zeros(2, 16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="the weights of an adapter among its own"):
        load_checkpoint(str(folder), NO_OVERRIDES)
