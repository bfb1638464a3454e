"""A whole TensorRT build on the contract double: from a checkpoint to summaries, on no GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import (
    TYPE_FP16,
    TYPE_FP32,
    ModelConfig,
    ModelInstanceGroup,
)

from builders import pipeline
from builders.config import BuildConfig
from builders.runtime_choice import RuntimeChoice
from kobart_runtime.errors import ConfigError
from kobart_runtime.service import Call, SummarizationService
from tests.builders.conftest import MakeCheckpoint
from tests.fakes import RecordingSink
from tests.tensorrt_double.api import MAJORS
from tests.tensorrt_double.install import installed

DOCUMENTS = [
    "어제 회의에서 다음 달 출시 일정을 확정했습니다",
    "기상청은 내일 중부 지방에 비가 내리겠다고 예보했다",
    "시험은 이번 주 금요일까지 마치기로 했습니다",
]


@pytest.fixture
def double(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    choice = RuntimeChoice(runtime="tensorrt", reason="contract double", gpu=None)
    monkeypatch.setattr(pipeline, "choose_runtime", lambda runtime, precision: choice)
    with installed(request.param):
        yield request.param


@pytest.fixture
def calibration_data(tmp_path: Path) -> Path:
    path = tmp_path / "dev.jsonl"
    lines = [json.dumps({"dialogue": text, "summary": text[:20]}) for text in DOCUMENTS * 4]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def summaries(folder: Path) -> list[str]:
    service = SummarizationService.open(folder / "kobart" / "1")
    sinks = [RecordingSink() for _ in range(2 * len(DOCUMENTS))]
    for number, sink in enumerate(sinks):
        text = DOCUMENTS[number % len(DOCUMENTS)].encode()
        settings = {"num_beams": 1 + number % 3, "max_new_tokens": 12}
        service.submit(Call(text=text, settings=settings), sink)
    texts = [sink.text for sink in sinks]
    service.close()
    return texts


@pytest.mark.parametrize(
    ("double", "precision"),
    [("8", "fp32"), ("8", "fp16"), ("8", "int8"), ("10", "int8"), ("11", "fp16")],
    indirect=["double"],
)
def test_a_build_that_never_ran_on_a_gpu_says_so(
    double: str,
    make_checkpoint: MakeCheckpoint,
    calibration_data: Path,
    tmp_path: Path,
    precision: str,
) -> None:
    output = tmp_path / "plans"
    data = None if precision == "fp32" else str(calibration_data)
    # Wide enough for weights of products to outweigh the tables, which int8 leaves in float16.
    wide = {"encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
    config = BuildConfig(
        checkpoint=str(make_checkpoint(wide)),
        precision=precision,
        runtime="tensorrt",
        calibration_data=data,
        output=str(output),
        max_batch_size=2,
        max_beams=3,
        force=True,  # the weights are random: nothing is asked of their accuracy
    )
    pipeline.build(config)
    manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    built = manifest["built"]
    assert (built["runtime"], built["gpu"]) == ("tensorrt", None)
    assert built["tensorrt"]["verified_on_gpu"] is False
    if precision != "int8":  # the plan's arithmetic is that of the graph it came from
        on_cpu = manifest["verification"]["max_abs_error_logits"]
        in_plan = built["tensorrt"]["verification"]["max_abs_error_logits"]
        assert in_plan == pytest.approx(on_cpu, rel=0.2, abs=1e-4)
    plan = built["tensorrt"]["plans"]["decoder.plan"]
    assert plan["strongly_typed"] == (double != "8")
    flags = {"fp32": [], "fp16": ["fp16"], "int8": ["fp16", "int8"]}[precision]
    assert plan["builder_flags"] == (flags if double == "8" else [])
    assert plan["kv_precision"] == ("fp32" if precision == "fp32" else "fp16")
    assert len(plan["scratch_bytes"]) == len(plan["profiles"])
    assert not list((output / "kobart" / "1").glob("*coder.onnx"))
    check_engine_models(output, len(plan["profiles"]), precision)
    assert all(isinstance(text, str) for text in summaries(output))


def check_engine_models(output: Path, num_profiles: int, precision: str) -> None:
    folder = output / "kobart_decoder"
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    config = text_format.Parse(text, ModelConfig())
    assert (config.platform, config.backend) == ("tensorrt_plan", "tensorrt")
    assert config.default_model_filename == "decoder.plan"
    [group] = config.instance_group
    assert group.kind == ModelInstanceGroup.KIND_GPU
    assert list(group.profile) == [str(index) for index in range(num_profiles)]
    [key] = [t for t in config.input if t.name == "past_key_values.1.decoder.key"]
    assert key.data_type == (TYPE_FP32 if precision == "fp32" else TYPE_FP16)
    assert {path.name for path in (folder / "1").iterdir()} == {"decoder.plan", "manifest.json"}


@pytest.mark.parametrize("double", MAJORS, indirect=True)
def test_summaries_are_those_of_an_onnx_runtime_build(
    double: str, make_checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = str(make_checkpoint())
    plans = pipeline.build(
        BuildConfig(checkpoint=checkpoint, runtime="tensorrt", output=str(tmp_path / "plans"))
    )
    monkeypatch.undo()
    graphs = pipeline.build(
        BuildConfig(checkpoint=checkpoint, runtime="onnxruntime", output=str(tmp_path / "graphs"))
    )
    assert summaries(plans) == summaries(graphs)


def test_tensorrt_is_refused_at_once_where_it_is_not(tmp_path: Path) -> None:
    config = BuildConfig(checkpoint="nowhere", runtime="tensorrt", output=str(tmp_path / "build"))
    with pytest.raises(ConfigError, match="--runtime tensorrt: this machine lacks"):
        pipeline.build(config)
    assert not (tmp_path / "build").exists()
