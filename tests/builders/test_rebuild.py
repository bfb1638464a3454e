"""Two int8 builds of one input are the same build: rules choose, and the clock only if asked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.config import BuildConfig
from builders.cross_kv import channel_scales
from builders.pipeline import build
from builders.precision import AGREEMENT_GATES
from builders.processor import Processor
from calibration.documents import Document
from kobart_runtime.model_config import ModelShape, sha256_of
from kobart_runtime.onnxruntime_runner import Encoder
from tests.conftest import MINI_CHECKPOINT

pytestmark = pytest.mark.usefixtures("peaks_for_scales")

NUM_DOCUMENTS = 4  # the shortest: each is calibrated on in every build
AVX2 = Processor(name="AMD EPYC", flags=("avx2",))
AMX = Processor(name="Intel Xeon", flags=("avx2", "avx512f", "avx512_vnni", "amx_int8", "amx_bf16"))


@pytest.fixture(scope="module")
def documents_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = (MINI_CHECKPOINT / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    path = tmp_path_factory.mktemp("documents") / "some.jsonl"
    path.write_text("\n".join(sorted(lines, key=len)[:NUM_DOCUMENTS]), encoding="utf-8")
    return path


def build_int8(documents_file: Path, output: Path, *, tune: bool = False) -> dict[str, Any]:
    """The manifest of an int8 build that is left to choose everything."""
    build(
        BuildConfig(
            precision="int8",
            runtime="onnxruntime",
            calibration_data=str(documents_file),
            output=str(output),
            tune=tune,
        )
    )
    return dict(json.loads((output / "manifest.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("processor", "kind", "encoder", "kept"),
    [
        (AVX2, "dynamic-unsigned", "onnxruntime", "float"),
        (AMX, "dynamic", "openvino", "int8"),
    ],
)
def test_two_builds_are_the_same(
    processor: Processor,
    kind: str,
    encoder: str,
    kept: str,
    documents_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if processor is AMX:
        # Signed weights saturate on the processor that really runs this, if it has no VNNI.
        monkeypatch.setitem(AGREEMENT_GATES, "int8", 0.0)
    monkeypatch.setattr(Processor, "read", lambda: processor)
    for module in ("precision.batch_ms", "encoder_choice.encode_ms", "cross_kv_choice.step_ms"):
        monkeypatch.setattr(f"builders.{module}", None)  # nothing is timed
    manifests = [build_int8(documents_file, tmp_path / name) for name in ("one", "two")]
    for manifest in manifests:
        del manifest["created"]
    assert manifests[0] == manifests[1]
    [manifest, _] = manifests
    for name in manifest["artefacts"]:
        first, second = (tmp_path / each / "kobart/1" / name for each in ("one", "two"))
        assert sha256_of(first) == sha256_of(second) == manifest["artefacts"][name]
    choices = [manifest[key] for key in ("conversion", "encoder", "cross_kv")]
    assert [choices[0]["kind"], choices[1]["engine"], choices[2]["kept"]] == [kind, encoder, kept]
    assert all(choice["reason"].startswith("rule: ") for choice in choices)
    assert manifest["machine"]["cpu_flags"] == list(processor.flags)
    assert (choices[0]["batch_ms"], choices[1]["encode_ms"], choices[2]["step_ms"]) == ({}, {}, {})


def test_tune_times_what_is_left_to_choose(documents_file: Path, tmp_path: Path) -> None:
    manifest = build_int8(documents_file, tmp_path / "build", tune=True)
    assert manifest["requested"]["tune"] is True
    conversion, encoder, cross_kv = (manifest[key] for key in ("conversion", "encoder", "cross_kv"))
    kinds = {"qdq", "dynamic", "dynamic-unsigned"}
    assert conversion["agreements"].keys() == conversion["batch_ms"].keys() == kinds
    assert encoder["encode_ms"].keys() == {"onnxruntime", "openvino"}
    assert cross_kv["step_ms"].keys() == {"float", "int8"}
    for choice in (conversion, encoder, cross_kv):
        assert choice["fell_back"] or choice["reason"].startswith("tune: ")


def test_a_choice_below_the_gate_is_replaced_aloud_and_in_the_manifest(
    documents_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Scales of keys and values that are far too coarse, on a processor whose rule is int8."""
    monkeypatch.setattr(Processor, "read", lambda: AVX2)
    monkeypatch.setattr("builders.choosing.Processor.has_amx", property(lambda self: True))

    def coarse(
        encoder: Encoder, given: Iterable[Document], shape: ModelShape
    ) -> dict[str, np.ndarray]:
        return {
            name: np.full_like(scale, 10)
            for name, scale in channel_scales(encoder, given, shape).items()
        }

    monkeypatch.setattr("builders.cross_kv_choice.channel_scales", coarse)
    manifest = build_int8(documents_file, tmp_path / "build")
    choice = manifest["cross_kv"]
    assert (choice["kept"], choice["fell_back"]) == ("float", True)
    assert choice["int8_agreement"] < 0.97
    assert choice["reason"].endswith("gate 97.0%: float instead")
    assert f"WARNING: {choice['reason']}\n" in capsys.readouterr().out
    assert manifest["built"]["cross_kv"] == "float"
    assert manifest["verification"]["passed"]
