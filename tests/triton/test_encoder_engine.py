"""`kobart_encoder` runs the encoder that the front model runs, by the same library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from builders.config import BuildConfig
from builders.pipeline import build
from builders.precision import Int8Maker
from calibration import Scales, calibrate
from kobart_runtime import bindings
from kobart_runtime.float_kv_encoder import FloatKvEncoder
from kobart_runtime.model_config import CROSS_FLOAT_FILE, CROSS_INT8_FILES, ModelConfig
from kobart_runtime.onnxruntime_runner import Encoder
from kobart_runtime.runners import open_encoder
from tests.conftest import MINI_CHECKPOINT
from tests.triton.conftest import running

pytestmark = pytest.mark.triton

NUM_DOCUMENTS = 4
ENCODER = "kobart_encoder"


@pytest.fixture(scope="module", params=["float", "int8"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 build whose encoder OpenVINO runs, of either kind of K/V."""
    scratch = tmp_path_factory.mktemp("build")
    lines = (MINI_CHECKPOINT / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    documents = scratch / "some.jsonl"
    documents.write_text("\n".join(sorted(lines, key=len)[:NUM_DOCUMENTS]), encoding="utf-8")
    config = BuildConfig(
        precision="int8",
        runtime="onnxruntime",
        encoder_engine="openvino",
        cross_kv=request.param,
        calibration_data=str(documents),
        output=str(scratch / "build"),
    )

    def calibrate_by_peaks(self: Int8Maker) -> Scales:  # found faster than scales by entropy
        return calibrate(self.source, self.shape, self.documents, method="minmax")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Int8Maker, "calibrate", calibrate_by_peaks)
        return build(config)


@pytest.fixture(scope="module")
def config(folder: Path) -> ModelConfig:
    return ModelConfig.from_manifest(folder / "manifest.json")


@pytest.fixture(scope="module")
def client(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[grpcclient.InferenceServerClient]:
    log = tmp_path_factory.mktemp("triton") / "log"
    with running(folder, log, ENCODER) as server:
        yield grpcclient.InferenceServerClient(server.grpc_url)


def contract_encoder(folder: Path, config: ModelConfig, engine: str) -> Encoder:
    """The front model's graph in one library, with floats behind it where it gives bytes."""
    front = folder / "kobart/1"
    encoder = open_encoder(front, replace(config.engines, encoder_engine=engine))
    if config.cross_kv == "int8":
        return FloatKvEncoder(encoder, front / CROSS_FLOAT_FILE, config.shape)
    return encoder


def sources(config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of R=3, S=29."""
    mask = (np.arange(29) < np.array([[29], [11], [1]])).astype(np.int32)
    ids = np.random.default_rng(3).integers(7, config.shape.vocab_size, mask.shape, dtype=np.int32)
    return ids, mask


def test_its_files_are_the_front_models(folder: Path, config: ModelConfig) -> None:
    files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["built"]["files"]
    opened = config.engines.files[0]
    assert files["kobart"] == list(config.engines.files)
    assert files[ENCODER][0] == opened
    assert (folder / ENCODER / "1" / opened).samefile(folder / "kobart/1" / opened)
    in_folder = sorted(path.name for path in (folder / ENCODER / "1").glob("*.onnx"))
    assert in_folder == sorted(files[ENCODER])
    if config.cross_kv == "int8":
        assert files[ENCODER] == [CROSS_INT8_FILES[0], CROSS_FLOAT_FILE]


def test_it_gives_what_the_front_models_library_gives_to_the_bit(
    client: grpcclient.InferenceServerClient, folder: Path, config: ModelConfig
) -> None:
    """Through Triton; another library's last bits differ, so that they tell which one runs."""
    ids, mask = sources(config)
    inputs = []
    for name, array in ((bindings.INPUT_IDS, ids), (bindings.ATTENTION_MASK, mask)):
        inputs.append(grpcclient.InferInput(name, array.shape, "INT32"))
        inputs[-1].set_data_from_numpy(array)
    result = client.infer(ENCODER, inputs)
    names = bindings.of_layers(bindings.present_cross, config.shape.num_decoder_layers)
    given = [result.as_numpy(name) for name in names]
    expected = contract_encoder(folder, config, "openvino").encode(ids, mask)
    for name, ours, theirs in zip(names, given, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    others = contract_encoder(folder, config, "onnxruntime").encode(ids, mask)
    assert any((ours != other).any() for ours, other in zip(given, others, strict=True))


def test_its_contract_is_float_whatever_the_front_model_keeps(
    client: grpcclient.InferenceServerClient, config: ModelConfig
) -> None:
    metadata = client.get_model_metadata(ENCODER)
    shape = [-1, config.shape.num_heads, -1, config.shape.head_dim]
    names = bindings.of_layers(bindings.present_cross, config.shape.num_decoder_layers)
    assert [output.name for output in metadata.outputs] == names
    assert {output.datatype for output in metadata.outputs} == {"FP32"}
    assert all(list(output.shape) == shape for output in metadata.outputs)
