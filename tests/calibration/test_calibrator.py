"""Whole calibrations: repeatable, refused for another model, nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import calibration.calibrator
from calibration import Encoders, Scales, calibrate, encode_pairs, read_scales
from calibration.calibrator import activation_tensors
from calibration.documents import Document, DocumentSet
from calibration.feeds import MAX_DOCUMENTS
from kobart_documents import read_pairs
from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import sha256_of
from tests.calibration.conftest import TEXTS, Exported, write_documents
from tests.calibration.memory import peak_bytes


@pytest.fixture(scope="module")
def scales(exported: Exported, documents_file: Path, encoders: Encoders) -> Scales:
    return calibrate(
        exported.folder, exported.shape, encode_pairs(read_pairs(documents_file), encoders)
    )


def test_every_product_with_weights_has_a_scale(scales: Scales, exported: Exported) -> None:
    for name in ("encoder.onnx", "decoder.onnx"):
        tensors = activation_tensors(exported.folder / name)
        assert list(scales.scales[name]) == tensors
        assert scales.models[name] == sha256_of(exported.folder / name)
    # Encoder: q = k = v, output, fc1, fc2, and all cross-attention products of the last states.
    assert len(scales.scales["encoder.onnx"]) == 5
    # Decoder: qkv, output, cross query, cross output, fc1, fc2, head.
    assert len(scales.scales["decoder.onnx"]) == 7


def test_another_order_of_the_same_documents_gives_the_same_scales(
    scales: Scales, exported: Exported, encoders: Encoders, tmp_path: Path
) -> None:
    turned = encode_pairs(
        read_pairs(write_documents(tmp_path / "turned.jsonl", TEXTS[::-1])), encoders
    )
    again = calibrate(exported.folder, exported.shape, turned)
    assert replace(again, documents=scales.documents) == scales


def test_a_file_round_trips(scales: Scales, exported: Exported, tmp_path: Path) -> None:
    scales.write(tmp_path / "scales.json")
    assert read_scales(tmp_path / "scales.json", exported.folder) == scales
    assert [path.name for path in tmp_path.iterdir()] == ["scales.json"]


def test_another_model_is_refused(scales: Scales, exported: Exported, tmp_path: Path) -> None:
    scales.write(tmp_path / "scales.json")
    other = shutil.copytree(exported.folder, tmp_path / "other")
    with (other / "decoder.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BuildError, match=r"calibrated for a decoder\.onnx with sha256 .* again"):
        read_scales(tmp_path / "scales.json", other)


@pytest.mark.parametrize(
    "damage",
    [
        {"format": 2},
        {"scales": {"encoder.onnx": {}}},
        {"scales": {"encoder.onnx": {"x": -1.0}, "decoder.onnx": {}}},
        {"scales": {"encoder.onnx": {"x": float("nan")}, "decoder.onnx": {}}},
        {"unknown": 1},
    ],
)
def test_a_malformed_file_is_refused(
    damage: dict[str, Any], scales: Scales, exported: Exported, tmp_path: Path
) -> None:
    path = tmp_path / "scales.json"
    scales.write(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **damage}), encoding="utf-8")
    with pytest.raises(BuildError, match=r"no scales file .*: calibrate again"):
        read_scales(path, exported.folder)


def test_an_interrupted_calibration_leaves_nothing(
    exported: Exported,
    documents_file: Path,
    encoders: Encoders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: Any) -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(calibration.calibrator, "decoder_feeds", stop)
    folder = shutil.copytree(exported.folder, tmp_path / "float")
    with pytest.raises(KeyboardInterrupt):
        calibrate(folder, exported.shape, encode_pairs(read_pairs(documents_file), encoders))
    assert {path.name for path in folder.iterdir()} == {"encoder.onnx", "decoder.onnx"}


def test_a_failed_write_leaves_the_old_file(
    scales: Scales, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scales.json"
    path.write_text("old", encoding="utf-8")

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        scales.write(path)
    assert [each.name for each in tmp_path.iterdir()] == ["scales.json"]
    assert path.read_text(encoding="utf-8") == "old"


def test_memory_does_not_grow_with_the_documents(exported: Exported) -> None:
    """numpy's share: batches of activations and caches; the graphs are the same.

    What entropy keeps of them, a histogram a tensor, has a test of its own.
    """

    def scales(count: int) -> Scales:
        documents = DocumentSet("", tuple(Document((9,) * 60, (1,) * 20) for _ in range(count)))
        return calibrate(exported.folder, exported.shape, documents, method="minmax")

    few, many = peak_bytes(scales, MAX_DOCUMENTS), peak_bytes(scales, 8 * MAX_DOCUMENTS)
    assert many < 1.15 * few
