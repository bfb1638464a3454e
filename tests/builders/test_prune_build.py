"""`--prune`: steps, their refusals, and whole builds from pruned and from saved models."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from google.protobuf import text_format
from torch import nn
from transformers import BartForConditionalGeneration
from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig

from builders.build_all import main
from builders.checkpoint import load_checkpoint
from builders.config import BuildConfig, read_yaml
from builders.paths import CHECKOUT
from builders.pipeline import build, load_source
from builders.prune_format import PrunedBart
from builders.prune_steps import PruneStep, parse_step
from builders.pruning import ModelPruner
from builders.special_ids import IdOverrides
from kobart_runtime.errors import CheckpointError, ConfigError, DocumentError

MakeCheckpoint = Callable[..., Path]
SIZES = {
    "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4,
}  # fmt: skip
PRUNE: dict[str, tuple[str, ...]] = {
    "magnitude": ("magnitude=0.3",),
    "global": ("global=0.4",),
    "2:4": ("2:4",),
    "structured": ("structured=0.25",),
    "layers": ("layers=encoder:1,decoder:1",),
    "all": ("layers=decoder:1", "structured=0.3", "magnitude=0.3"),
}
DOCUMENTS = [
    {
        "dialogue": "어제 회의에서 다음 달 출시 일정을 확정했습니다",
        "summary": "출시 일정을 확정했다",
    },
    {"dialogue": "기상청은 내일 비가 내리겠다고 예보했다", "summary": "내일 비가 내린다"},
]


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: MakeCheckpoint) -> Path:
    folder = make_checkpoint(SIZES)
    lines = [json.dumps(document, ensure_ascii=False) for document in DOCUMENTS]
    (folder / "dev.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def manifest_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module", params=list(PRUNE))
def method(request: pytest.FixtureRequest) -> str:
    """A key of PRUNE."""
    return str(request.param)


@pytest.fixture(scope="module")
def built(method: str, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("out") / "build"
    return build(BuildConfig(checkpoint=str(checkpoint), output=str(output), prune=PRUNE[method]))


def test_builds_of_pruned_models_pass_the_gate(method: str, built: Path) -> None:
    manifest = manifest_of(built)
    assert manifest["verification"]["passed"]
    assert manifest["verification"]["enforced"]
    pruning = manifest["pruning"]
    assert tuple(pruning["requested"]) == PRUNE[method]
    stats = pruning["stats"]
    assert manifest["checkpoint"]["parameters"] == stats["total_params"]
    assert 0 < stats["sparsity"] < stats["target_sparsity"] < 1
    used_loss = any(text.startswith("layers") for text in PRUNE[method])
    assert pruning["loss_measured_on"] == ("2 documents of dev.jsonl" if used_loss else None)


def test_saved_models_build_the_same_engines(
    method: str, built: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Prune, save_pretrained, load and export give what `build --prune` exported."""
    source, _ = load_source(BuildConfig(checkpoint=str(checkpoint), prune=PRUNE[method]))
    source.checkpoint.model.save_pretrained(tmp_path / "saved")
    shutil.copy(checkpoint / "tokenizer.json", tmp_path / "saved")
    output = build(BuildConfig(checkpoint=str(tmp_path / "saved"), output=str(tmp_path / "b")))
    first, second = manifest_of(built), manifest_of(output)
    assert second["pruning"] is None
    for key in ("model", "shape", "artefact_bytes"):
        assert first[key] == second[key]
    for name in ("encoder.onnx", "decoder.onnx"):
        graphs = [onnx.load(folder / "kobart/1" / name).graph for folder in (built, output)]
        weights = [sorted(tensor.raw_data for tensor in graph.initializer) for graph in graphs]
        assert weights[0] == weights[1]


def test_embeddings_come_through_bit_identical(method: str, built: Path, checkpoint: Path) -> None:
    """Those of the model that is exported, and those in the graphs that are served."""
    whole = load_checkpoint(str(checkpoint), IdOverrides()).model
    source, _ = load_source(BuildConfig(checkpoint=str(checkpoint), prune=PRUNE[method]))
    stored = {
        onnx.numpy_helper.to_array(tensor).tobytes()
        for name in ("encoder.onnx", "decoder.onnx")
        for tensor in onnx.load(built / "kobart/1" / name).graph.initializer
    }
    tables = {
        name: module for name, module in whole.named_modules() if isinstance(module, nn.Embedding)
    }
    assert len(tables) == 5  # one of tokens under three names, and the positions of both stacks
    for name, table in tables.items():
        assert torch.equal(source.checkpoint.model.get_submodule(name).weight, table.weight)  # type: ignore[arg-type]
        # The first rows of BART's positions are never looked up, and not exported.
        served = table.weight[getattr(table, "offset", 0) :]
        assert served.detach().numpy().tobytes() in stored, name


@pytest.mark.parametrize("method", ["all"], indirect=True)
def test_the_build_carries_the_new_dimensions(built: Path) -> None:
    manifest = manifest_of(built)
    shape = manifest["shape"]
    assert (shape["num_decoder_layers"], shape["num_heads"], shape["head_dim"]) == (1, 3, 4)
    model = manifest["model"]
    assert (model["encoder_layers"], model["decoder_layers"], model["d_model"]) == (2, 1, 16)
    assert (model["encoder_attention_heads"], model["decoder_attention_heads"]) == (3, 3)
    assert (model["encoder_ffn_dim"], model["decoder_ffn_dim"]) == (32 - 9, 32 - 9)
    text = (built / "kobart_decoder/config.pbtxt").read_text(encoding="utf-8")
    dims = {t.name: list(t.dims) for t in text_format.Parse(text, TritonConfig()).input}
    assert dims["past_key_values.0.encoder.key"] == [3, -1, 4]
    assert "past_key_values.1.encoder.key" not in dims


def test_layers_to_prune_reach_the_model(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "b")]
    arguments += ["--prune", "structured=0.25", "--prune", "magnitude=0.5"]
    arguments += ["--prune-layers", "fc1", "--prune-layers", "model.encoder.*"]
    assert main(arguments) == 0
    manifest = manifest_of(tmp_path / "b")
    assert manifest["pruning"]["layers_to_prune"] == ["fc1", "model.encoder.*"]
    assert manifest["model"]["encoder_attention_heads"] == 3
    assert manifest["model"]["decoder_attention_heads"] == 4
    layers = manifest["pruning"]["stats"]["layers"]
    assert layers["model.decoder.layers.0.fc1"] == pytest.approx(1 - 0.75 * 0.5)
    assert "model.decoder.layers.0.self_attn.q_proj" not in layers


def test_the_command_tells_what_was_pruned(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "b")]
    assert main([*arguments, "--prune", "magnitude=0.5"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\[1/6\] load .*, prune magnitude=0\.5 \.\.\.", shown)
    assert re.search(r"prune: magnitude=0\.5: [\d,]+ of [\d,]+ parameters are active", shown)
    assert "WARNING: magnitude pruning of 50 % without fine-tuning" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prune", "magnitude=1.0"], "a share from 0 to below 1 (0.3 = 30 %), got 1.0"),
        (["--prune", "magnitude=nan"], "a share from 0 to below 1 (0.3 = 30 %), got nan"),
        (["--prune", "magnitude=0"], "'magnitude=0' removes nothing: leave it out"),
        (["--prune", "magnitude=x"], "'magnitude=x' needs a number behind '='"),
        (["--prune", "magnitud=0.3"], "prune must be magnitude=0.3, global=0.4, structured=0.2"),
        (["--prune", "2:5"], "prune must be magnitude=0.3, global=0.4"),
        (["--prune", "layers=encoder:0"], "at least 1, such as layers=encoder:4,decoder:3"),
        (["--prune", "layers=encoder:1,encoder:2"], "wants how many to keep of each stack"),
        (["--prune-layers", "fc1"], "and none is asked for: add --prune"),
        (["--prune", "layers=encoder:3"], "the encoder has 2 layers: 1..2 can stay, got 3"),
        (["--prune", "global=0.3", "--prune-layers", "lm_head"], "names the output layer"),
        (["--prune", "2:4", "--prune-layers", "fc3"], "near names: fc2, fc1"),
        (["--prune", "structured=0.3", "--prune-layers", "fc2"], "residual stream"),
    ],
)
def test_refusals_of_the_command(
    options: list[str],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "b")]
    assert main([*arguments, *options]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_steps_are_taken_apart() -> None:
    assert parse_step("global=.4") == PruneStep(text="global=.4", method="global", amount=0.4)
    assert parse_step("layers=decoder:3") == PruneStep(
        text="layers=decoder:3", method="layers", decoder_layers=3
    )


def test_yaml_takes_one_step_or_a_list(tmp_path: Path) -> None:
    path = tmp_path / "build.yaml"
    path.write_text('prune: structured=0.2\nprune-layers: [fc1, "*.fc2"]\n', encoding="utf-8")
    assert read_yaml(path) == {"prune": ("structured=0.2",), "prune_layers": ("fc1", "*.fc2")}
    path.write_text("prune: [2:4]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="must be text or a list of texts, in quotes, got 124"):
        read_yaml(path)


def test_the_configuration_that_is_shipped_builds(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--config", str(CHECKOUT / "configs/inference/pruning.yaml")]
    arguments += ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "b")]
    assert main(arguments) == 0
    manifest = manifest_of(tmp_path / "b")
    assert manifest["name"] == "kobart-pruned"
    assert manifest["pruning"]["requested"] == ["structured=0.2"]
    assert manifest["model"]["encoder_ffn_dim"] == 32 - 6
    assert manifest["verification"]["passed"]


def _saved(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """A model with 3 of 4 heads in `folder`; its config.json."""
    model = load_checkpoint(str(checkpoint), IdOverrides()).model
    ModelPruner(amount=0.25).structured_pruning(model, layers_to_prune=["q_proj"])
    model.save_pretrained(folder)
    return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def test_the_extension_is_explicit_and_transformers_refuses_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    config = _saved(checkpoint, tmp_path)
    assert config["kobart_triton"] == {
        "encoder_heads": [3, 3], "decoder_heads": [3, 3],
        "encoder_ffn_dims": [32, 32], "decoder_ffn_dims": [32, 32],
    }  # fmt: skip
    assert (config["d_model"], config["encoder_attention_heads"]) == (16, 4)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        BartForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_heads": [3]}, r"encoder_heads \[3\], it must be 2 whole numbers from 1 to 4"),
        ({"encoder_heads": [3, 5]}, r"encoder_heads \[3, 5\], it must be"),
        ({"encoder_ffn_dims": [0, 32]}, r"encoder_ffn_dims \[0, 32\], it must be .* 1 to 32"),
        ({"decoder_ffn_dims": [32, 31.0]}, "decoder_ffn_dims"),
        ({"decoder_heads": [3, 2]}, "all decoder layers must have the same number"),
        ({"heads": 3}, "must be an object with the keys encoder_heads"),
    ],
)
def test_extensions_that_are_refused(
    change: dict[str, Any], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    config = _saved(checkpoint, tmp_path)
    config["kobart_triton"].update(change)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        PrunedBart.from_pretrained(tmp_path)


def test_a_model_saved_with_masks_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    model = load_checkpoint(str(checkpoint), IdOverrides()).model
    ModelPruner().magnitude_pruning(model)
    model.save_pretrained(tmp_path)
    shutil.copy(checkpoint / "tokenizer.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"masks: call ModelPruner\.make_permanent"):
        load_checkpoint(str(tmp_path), IdOverrides())


@pytest.mark.parametrize(
    "text", ["", '{"dialogue": "하나"}', '{"dialogue": 1, "summary": "둘"}', "["]
)
def test_documents_that_are_refused(
    text: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    folder = make_checkpoint(SIZES)
    (folder / "dev.jsonl").write_text(text, encoding="utf-8")
    config = BuildConfig(
        checkpoint=str(folder), output=str(tmp_path / "b"), prune=["layers=encoder:1"]
    )
    with pytest.raises(DocumentError, match=r"dev\.jsonl(, line 1| holds no| has no column)"):
        build(config)


def test_without_documents_the_loss_is_measured_on_the_models_own_answers(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    config = BuildConfig(
        checkpoint=str(make_checkpoint(SIZES)),
        output=str(tmp_path / "b"),
        prune=["layers=encoder:1"],
    )
    pruning = manifest_of(build(config))["pruning"]
    assert pruning["loss_measured_on"] == "random sources and the model's own greedy answers"
    assert pruning["stats"]["steps"][0]["stacks"][0]["stack"] == "encoder"


def test_help_does_not_import_torch() -> None:
    code = "import sys, builders, builders.build_all; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True)


def test_seeds_of_the_caller_are_left_alone(checkpoint: Path) -> None:
    model = load_checkpoint(str(checkpoint), IdOverrides()).model
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    ModelPruner().layer_pruning(model, 1)
    assert torch.equal(torch.rand(3), expected)
