"""int8 builds of models of all depths, widths and head counts: the products decide."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders.build_all import main
from builders.config import BuildConfig
from builders.pipeline import build
from builders.precision import Conversion, Int8Maker, make_half
from calibration.scales import Scales
from kobart_runtime.errors import BuildError
from tests.conftest import MINI_CHECKPOINT

MakeCheckpoint = Callable[..., Path]
NUM_DOCUMENTS = 12  # of kobart-mini's, to calibrate on
FULL_WIDTH = {
    "d_model": 768,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
    "vocab_size": 20000,
}
# name -> config.json, --prune. An embedding table in float16 has more bytes than all products.
MODELS: dict[str, tuple[dict[str, int], tuple[str, ...]]] = {
    "2 + 2 layers": ({**FULL_WIDTH, "encoder_layers": 2, "decoder_layers": 2}, ()),
    "3 + 3 layers, structured": (
        {**FULL_WIDTH, "encoder_layers": 3, "decoder_layers": 3},
        ("structured=0.2",),
    ),
    "odd and unequal heads": (
        {"d_model": 60, "encoder_attention_heads": 3, "decoder_attention_heads": 5},
        (),
    ),
    "one head": (
        {"encoder_attention_heads": 1, "decoder_attention_heads": 1, "decoder_layers": 1},
        (),
    ),
    "odd heads and neurons, structured": (
        {
            "d_model": 42,
            "encoder_attention_heads": 7,
            "decoder_attention_heads": 3,
            "encoder_ffn_dim": 77,
            "decoder_ffn_dim": 121,
            "encoder_layers": 2,
            "vocab_size": 2000,
        },
        ("structured=0.35",),
    ),
}


def manifest_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def documents_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = ["어제 회의에서 출시 일정을 확정했습니다", "시험은 금요일까지 마치기로", "내일 비가"]
    lines = [json.dumps({"dialogue": text, "summary": text[:9]}) for text in texts]
    path = tmp_path_factory.mktemp("documents") / "some.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


SLOW = ["3 + 3 layers, structured"]


@pytest.mark.usefixtures("peaks_for_scales")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in MODELS],
)
def test_every_shape_builds_in_int8(
    name: str,
    make_checkpoint: MakeCheckpoint,
    documents_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forced: random weights need not pass the gate of the tokens chosen alike."""
    sizes, prune = MODELS[name]
    if sizes.keys() >= FULL_WIDTH.keys():  # its products would be tried one by one, for minutes
        monkeypatch.setattr("builders.precision.INT8_AIM", 0.0)
    output = build(
        BuildConfig(
            checkpoint=str(make_checkpoint(sizes)),
            precision="int8",
            runtime="onnxruntime",
            calibration_data=str(documents_file),
            prune=prune,
            cross_kv="int8",
            output=str(tmp_path / "build"),
            force=True,
        )
    )
    built = manifest_of(output)["built"]
    assert built["precision"] == "int8"
    assert built["precision_share"] > 0.6
    assert "multiply-accumulates" in built["precision_share_of"]
    assert built["products"].keys() == {
        "encoder.onnx", "decoder.onnx", "encoder.qdq.onnx", "decoder.qdq.onnx",
        "encoder.cross-int8.onnx", "decoder.cross-int8.onnx",
    }  # fmt: skip
    assert all(next(iter(shares)) == "int8" for shares in built["products"].values())


def test_a_trained_model_of_one_encoder_layer_builds_in_int8(tmp_path: Path) -> None:
    output, documents = tmp_path / "build", tmp_path / "some.jsonl"
    lines = (MINI_CHECKPOINT / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    documents.write_text("\n".join(lines[:NUM_DOCUMENTS]), encoding="utf-8")
    arguments = ["--precision", "int8", "--prune", "layers=encoder:1", "--runtime", "onnxruntime"]
    arguments += ["--calibration-data", str(documents), "--output", str(output)]
    assert main(arguments) == 0
    manifest = manifest_of(output)
    assert manifest["built"]["precision"] == "int8"
    assert manifest["verification"]["passed"]
    assert manifest["verification"]["enforced"]


def test_float16_products_are_refused_where_int8_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(self: Int8Maker, scales: Scales, target: Path) -> Conversion:
        return make_half(self.source, target, self.shape, self.documents)

    monkeypatch.setattr(Int8Maker, "calibrate", lambda self: None)
    monkeypatch.setattr(Int8Maker, "make", make)
    config = BuildConfig(
        checkpoint=str(MINI_CHECKPOINT),
        precision="int8",
        runtime="onnxruntime",
        encoder_engine="onnxruntime",
        cross_kv="float",
        output=str(tmp_path / "build"),
        force=True,
    )
    with pytest.raises(
        BuildError, match=r"int8 was asked for, the products of encoder\.onnx are 100\.0% fp16"
    ):
        build(config)
    assert list(tmp_path.iterdir()) == []
