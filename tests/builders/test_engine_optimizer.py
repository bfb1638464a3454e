"""TensorRTOptimizer: TorchScript where TensorRT is not, and plans on the contract double."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from transformers import BartForConditionalGeneration

import builders
from builders import create_tensorrt_optimizer, optimizer
from builders.gpu import Gpu
from builders.gpu_sampler import GpuSampler
from builders.optimizer import TensorRTOptimizer
from kobart_runtime.errors import BuildError, ConfigError
from kobart_runtime.settings import GenerationSettings
from tests.patience import wait_until
from tests.tensorrt_double.install import installed
from tests.tensorrt_double.plan import Plan
from tests.tensorrt_double.plans import tiny_model

SOURCES = [[5, 6, 7, 8], [9, 10, 11], [12] * 40]
DOCUMENTS = [(range(5, 5 + length), range(30, 30 + length // 3)) for length in (6, 15, 30, 16)]
SETTINGS = GenerationSettings(num_beams=3, max_new_tokens=10, no_repeat_ngram_size=2)


def expected(model: BartForConditionalGeneration) -> list[list[int]]:
    """transformers' own answer; the decoder's start is left out."""
    return [
        model.generate(  # type: ignore[misc]  # transformers types its own self wrongly
            torch.tensor([source]),
            num_beams=3,
            max_new_tokens=10,
            no_repeat_ngram_size=2,
            early_stopping=True,
        )[0, 1:].tolist()
        for source in SOURCES
    ]


@pytest.fixture
def without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "missing_packages", lambda: ["TensorRT"])


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    found = Gpu(name="GPU", compute_capability=(8, 6), memory_bytes=1 << 34, cuda_version="12.4")
    monkeypatch.setattr(optimizer, "find_gpu", lambda: found)
    monkeypatch.setattr(optimizer, "missing_packages", list)
    with installed("10"):
        yield


@pytest.mark.usefixtures("without_tensorrt")
def test_without_tensorrt_the_model_is_traced_and_generates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model()
    with caplog.at_level(logging.WARNING):
        converted = create_tensorrt_optimizer("int8").convert_to_tensorrt(
            model, (2, 16), tmp_path / "e", documents=DOCUMENTS
        )
    assert "TensorRT is not used, this machine lacks TensorRT" in caplog.text
    assert "the engines are TorchScript, in fp32 on the CPU" in caplog.text
    assert converted.runtime == "torchscript"
    assert converted.generate(SOURCES, SETTINGS) == expected(model)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_with_tensorrt_plans_are_built_and_generate(tmp_path: Path, precision: str) -> None:
    model = tiny_model()
    door = create_tensorrt_optimizer(precision=precision, max_batch_size=4)
    converted = door.convert_to_tensorrt(model, (2, 16), tmp_path, {"input_ids": {0: "batch"}})
    assert converted.runtime == "tensorrt"
    assert {path.name for path in tmp_path.glob("*.plan")} == {"encoder.plan", "decoder.plan"}
    limits = converted.limits
    assert (limits.max_batch_size, limits.max_source_length) == (4, 16)
    answers = converted.generate(SOURCES[:2], SETTINGS)
    if precision == "fp32":
        assert answers == expected(model)[:2]


@pytest.mark.usefixtures("without_tensorrt")
def test_benchmark_times_real_passes(tmp_path: Path) -> None:
    model = tiny_model()
    door = create_tensorrt_optimizer()
    converted = door.convert_to_tensorrt(model, (2, 8), tmp_path)
    for subject in (model, converted):
        calls: list[int] = []
        model.model.encoder.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        result = door.benchmark(subject, (3, 8), n_iterations=5, warmup_iterations=2)
        assert set(result) == {"avg_time", "throughput", "p50", "p95", "p99", "memory_mb"}
        assert 0 < result["p50"] <= result["p95"] <= result["p99"]
        assert result["throughput"] == pytest.approx(3 / result["avg_time"])
        assert result["memory_mb"] > 10
        assert len(calls) == (7 if subject is model else 0)
    with pytest.raises(ConfigError, match="n_iterations must be above 0, got 0"):
        door.benchmark(model, (3, 8), n_iterations=0)


@pytest.mark.usefixtures("double")
def test_int8_plans_are_calibrated_on_documents(tmp_path: Path) -> None:
    door = create_tensorrt_optimizer("int8", max_batch_size=4)
    converted = door.convert_to_tensorrt(tiny_model(), (2, 16), tmp_path, documents=DOCUMENTS)
    plan = Plan.read((tmp_path / "decoder.plan").read_bytes())
    assert plan
    graph = onnx.load_from_string(plan.graph).graph
    assert "QuantizeLinear" in {node.op_type for node in graph.node}
    assert converted.facts["decoder.plan"].precision == "int8"
    assert [len(ids) for ids in converted.generate(SOURCES, SETTINGS)] == [10] * len(SOURCES)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (None, r"calibrated on documents: give documents=\[\(source ids, summary ids\), \.\.\.\]"),
        ([], "documents is empty"),
        ([([1, 97], [2])], r"ids 0\.\.96, none of them empty, got \[1, 97\]"),
        ([([1], [])], r"none of them empty, got \[\]"),
    ],
)
def test_int8_without_usable_documents(tmp_path: Path, documents: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TensorRTOptimizer("int8").convert_to_tensorrt(
            tiny_model(), (1, 8), tmp_path / "engines", documents=documents
        )
    assert not (tmp_path / "engines").exists()


def test_a_gpu_without_fast_int8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Gpu(name="GPU", compute_capability=(6, 0), memory_bytes=1 << 34, cuda_version="12.4")
    monkeypatch.setattr(optimizer, "find_gpu", lambda: found)
    monkeypatch.setattr(optimizer, "missing_packages", list)
    with pytest.raises(ConfigError, match="has no fast int8: take --precision fp32"):
        TensorRTOptimizer("int8")


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def write(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return write


def test_a_gpu_is_sampled_while_something_runs(nvidia_smi: Callable[[str], None]) -> None:
    rise = "for u in 10 20 30 40 50 60; do sleep 0.02; echo $u, 1000; done"
    nvidia_smi(f"echo '99, 9999'; while true; do {rise}; done")
    with GpuSampler() as sampler:
        wait_until(lambda: sampler.samples)
    seen = [utilization for utilization, _ in sampler.samples]
    assert seen
    assert 99 not in seen, "what was before is left out"
    assert sampler.figures() == {
        "gpu_utilization": sum(seen) / len(seen),
        "memory_mb": 1048.576,
    }


@pytest.mark.parametrize(
    ("script", "message"),
    [("echo no devices were found; exit 6", "no devices were found"), ("exit 9", "it ended")],
)
def test_a_gpu_that_tells_nothing(
    nvidia_smi: Callable[[str], None], script: str, message: str
) -> None:
    nvidia_smi(script)
    with pytest.raises(BuildError, match=f"nvidia-smi does not tell the GPU's use: {message}"):
        GpuSampler().__enter__()


@pytest.mark.usefixtures("double")
def test_engines_on_a_gpu_are_sampled(tmp_path: Path, nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi("while sleep 0.02; do echo 37, 1000; done")
    door = create_tensorrt_optimizer("fp32", max_batch_size=2)
    converted = door.convert_to_tensorrt(tiny_model(), (2, 8), tmp_path / "engines")
    result = door.benchmark(converted, (2, 8), n_iterations=3, warmup_iterations=1)
    assert (result["gpu_utilization"], result["memory_mb"]) == (37.0, 1048.576)


def test_settings_are_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.json"
    door = TensorRTOptimizer(precision="fp32", workspace_size=1 << 20, max_batch_size=3)
    door.save_config(path)
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert saved["tensorrt_available"] == door.tensorrt_available
    assert torch.__version__.startswith(saved["versions"]["torch"])  # less "+cu130"
    other = TensorRTOptimizer()
    other.load_config(path)
    assert (other.precision, other.workspace_size, other.max_batch_size) == ("fp32", 1 << 20, 3)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no saved configuration"):
        other.load_config(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "bf16"}, "precision must be one of fp32, fp16, int8, got bf16"),
        ({"workspace_size": 0}, "workspace_size must be a whole number above 0, got 0"),
        ({"max_batch_size": 1.5}, r"max_batch_size must be a whole number above 0, got 1\.5"),
    ],
)
def test_settings_out_of_range(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TensorRTOptimizer(**settings)


def test_shapes_and_axes_out_of_range(tmp_path: Path) -> None:
    door = TensorRTOptimizer(max_batch_size=4)
    with pytest.raises(ConfigError, match=r"batch of input_shape must be 1\.\.4, got 5"):
        door.convert_to_tensorrt(tiny_model(), (5, 8), tmp_path)
    with pytest.raises(ConfigError, match="dynamic_axes names logits"):
        door.convert_to_tensorrt(tiny_model(), (1, 8), tmp_path, {"logits": {0: "batch"}})


def test_the_package_gives_its_doors() -> None:
    assert builders.create_tensorrt_optimizer is create_tensorrt_optimizer
    assert "TensorRTOptimizer" in builders.__all__
