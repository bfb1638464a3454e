"""TorchScript builds: what they consist of, and modules that hold on every shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from builders import torchscript
from builders.build_all import main
from builders.config import BuildConfig
from builders.pipeline import build
from kobart_runtime.errors import BuildError, ConfigError
from kobart_runtime.model_config import ModelConfig, verify_artefacts
from tests.builders.conftest import MakeCheckpoint


@pytest.fixture(scope="module")
def output(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build") / "torchscript"
    checkpoint = str(make_checkpoint())
    return build(BuildConfig(checkpoint=checkpoint, runtime="torchscript", output=str(folder)))


def test_the_manifest_says_what_was_built(output: Path) -> None:
    manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    built = manifest["built"]
    assert manifest["requested"] == {
        "precision": "fp32",
        "runtime": "torchscript",
        "encoder_engine": "auto",
        "cross_kv": "auto",
        "tune": False,
    }
    assert (built["runtime"], built["precision"], built["reason"]) == (
        "torchscript",
        "fp32",
        "as asked",
    )
    assert (built["precision_share"], built["opset"], built["gpu"]) == (1.0, None, None)
    assert manifest["verification"]["max_abs_error_logits"] < 1e-4


def test_files_are_the_modules_and_no_graphs(output: Path) -> None:
    config = ModelConfig.from_manifest(output / "manifest.json")
    assert set(config.artefacts) == {"encoder.pt", "decoder.pt", "tokenizer.json"}
    for role in ("encoder", "decoder"):
        folder = output / f"kobart_{role}" / "1"
        verify_artefacts(folder, config.artefacts, [f"{role}.pt"])
        assert (folder / "model.py").is_file()
        assert 'backend: "python"' in (folder.parent / "config.pbtxt").read_text(encoding="utf-8")
    assert not list(output.rglob("*.onnx"))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_are_refused(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = f"runtime torchscript is for precision fp32, got {precision}: on CPUs"
    with pytest.raises(ConfigError, match=message):
        BuildConfig(runtime="torchscript", precision=precision)
    assert main(["--runtime", "torchscript", "--precision", precision]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize(("half", "precision"), [(False, "fp32"), (True, "fp16")])
def test_precision_is_read_from_the_weights(tmp_path: Path, half: bool, precision: str) -> None:
    layer = nn.Linear(4, 4).half() if half else nn.Linear(4, 4)
    states = torch.ones(2, 4, dtype=layer.weight.dtype)
    path = tmp_path / "module.pt"
    torchscript.write(layer, [(states,)], path)
    artefact = torchscript.read_back(path)
    assert (artefact.precision, artefact.precision_share) == (precision, 1.0)


def test_a_module_that_depends_on_the_traced_shape_is_refused(tmp_path: Path) -> None:
    class Frozen(nn.Module):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return states * float(states.shape[0])

    path = tmp_path / "module.pt"
    examples = [(torch.ones(2),), (torch.ones(3),)]
    with pytest.raises(BuildError, match=r"module\.pt cannot be traced: "):
        torchscript.write(Frozen(), examples, path)
    assert not path.exists()
