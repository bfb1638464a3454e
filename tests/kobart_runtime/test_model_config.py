"""Manifests as they should be, and each way of being none."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig, sha256_of, verify_artefacts
from kobart_runtime.service import SummarizationService
from kobart_runtime.settings import GenerationSettings, Limits

MANIFEST: dict[str, Any] = {
    "format": 1,
    "name": "kobart",
    "requested": {"runtime": "auto", "precision": "fp32"},
    "built": {"runtime": "onnxruntime", "precision": "fp32"},
    "ids": {
        "bos": 0,
        "eos": [1, 7],
        "pad": 3,
        "decoder_start": 2,
        "forced_bos": None,
        "forced_eos": 1,
    },
    "shape": {
        "num_decoder_layers": 6,
        "num_heads": 16,
        "head_dim": 48,
        "vocab_size": 30000,
        "num_candidates": 32,
    },
    "tokenizer": {"add_bos": False, "add_eos": True, "newline": "space"},
    "limits": {"max_beams": 4},
    "defaults": {"num_beams": 2},
    "artefacts": {"encoder.onnx": "00"},
}

Change = Callable[[dict[str, Any]], object]


def write(folder: Path, manifest: object) -> Path:
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return path


def test_a_manifest_is_read(tmp_path: Path) -> None:
    config = ModelConfig.from_manifest(write(tmp_path, MANIFEST))
    assert (config.name, config.runtime, config.precision) == ("kobart", "onnxruntime", "fp32")
    assert (config.ids.bos, config.ids.eos, config.ids.forced_bos) == (0, (1, 7), None)
    assert config.shape.vocab_size == 30000
    assert config.tokenizer.newline == "space"
    assert config.limits == Limits(max_beams=4)
    assert config.defaults == GenerationSettings(num_beams=2)
    assert config.artefacts == {"encoder.onnx": "00"}


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format=2),
        lambda m: m.pop("format"),
        lambda m: m.pop("ids"),
        lambda m: m["ids"].update(eos=1),
        lambda m: m["ids"].update(cls=6),
        lambda m: m["ids"].pop("pad"),
        lambda m: m["shape"].pop("head_dim"),
        lambda m: m["built"].pop("precision"),
        lambda m: m.update(limits=[1, 2]),
        lambda m: m["limits"].update(max_beams=0),
        lambda m: m["limits"].update(max_beems=3),
        lambda m: m["defaults"].update(temperature=0.5),
        lambda m: m["tokenizer"].update(newline="tab"),
        lambda m: m.update(artefacts=None),
    ],
)
def test_a_manifest_of_another_kind_is_refused(tmp_path: Path, change: Change) -> None:
    manifest = copy.deepcopy(MANIFEST)
    change(manifest)
    path = write(tmp_path, manifest)
    with pytest.raises(BuildError, match=r"is not a manifest of this version .*; build again"):
        ModelConfig.from_manifest(path)


@pytest.mark.parametrize("manifest", [[], None, 5, "kobart"])
def test_json_that_is_no_manifest_is_refused(tmp_path: Path, manifest: object) -> None:
    with pytest.raises(BuildError, match="build again"):
        ModelConfig.from_manifest(write(tmp_path, manifest))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / MANIFEST_NAME
    path.write_bytes(content)
    with pytest.raises(BuildError, match=rf"{path} cannot be read: .*; build again"):
        ModelConfig.from_manifest(path)


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"cannot be read: .*No such file"):
        ModelConfig.from_manifest(tmp_path / MANIFEST_NAME)


def test_artefacts_must_be_there_and_what_was_built(tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert sha256_of(path) == digest
    verify_artefacts(tmp_path, {"encoder.onnx": digest}, ["encoder.onnx"])
    with pytest.raises(BuildError, match=r"does not name it; build again"):
        verify_artefacts(tmp_path, {}, ["encoder.onnx"])
    with pytest.raises(BuildError, match=r"decoder\.onnx is missing; build again"):
        verify_artefacts(tmp_path, {"decoder.onnx": digest}, ["decoder.onnx"])
    path.write_bytes(b"weightz")
    with pytest.raises(BuildError, match=rf"is corrupt: sha256 [0-9a-f]{{64}}, .* {digest}"):
        verify_artefacts(tmp_path, {"encoder.onnx": digest}, ["encoder.onnx"])


def test_a_build_for_another_runtime_is_refused(tmp_path: Path) -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["built"]["runtime"] = "abacus"
    write(tmp_path, manifest)
    with pytest.raises(BuildError, match="needs the abacus runtime"):
        SummarizationService.open(tmp_path)


def test_a_build_that_lacks_its_engines_is_refused(tmp_path: Path) -> None:
    write(tmp_path, MANIFEST)
    with pytest.raises(BuildError, match=r"encoder\.onnx is missing; build again"):
        SummarizationService.open(tmp_path)


@pytest.mark.parametrize(
    ("field", "known"), [("encoder_engine", "openvino, onnxruntime"), ("cross_kv", "float, int8")]
)
def test_a_choice_of_a_later_version_is_refused(tmp_path: Path, field: str, known: str) -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["built"][field] = "abacus"
    config = ModelConfig.from_manifest(write(tmp_path, manifest))
    message = rf"this build's {field} is 'abacus', this version knows {known}: build again"
    with pytest.raises(BuildError, match=message):
        _ = config.engines
