"""What is left of the graphs once it is decided how cross-attention K/V are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from builders import cross_kv_choice
from builders.agreement import Teacher
from builders.cross_kv_choice import CrossKvChoice, choose_cross_kv, step_ms, write_int8
from builders.export import export_decoder, export_encoder
from builders.pipeline import Source
from kobart_runtime import bindings
from kobart_runtime.model_config import (
    CROSS_INT8_FILES,
    DECODER_FILE,
    ENCODER_FILE,
    EngineConfig,
)
from kobart_runtime.runners import open_runner

Choose = Callable[[dict[str, float]], CrossKvChoice]


@pytest.fixture
def engines(mini: Source) -> EngineConfig:
    return EngineConfig(runtime="onnxruntime", shape=mini.shape)


@pytest.fixture
def folder(mini: Source, engines: EngineConfig, tmp_path: Path) -> Path:
    """Float engines, and those of int8 K/V beside them."""
    export_encoder(mini.checkpoint.model, tmp_path / ENCODER_FILE)
    export_decoder(mini.checkpoint.model, tmp_path / DECODER_FILE, mini.shape.num_candidates)
    assert mini.documents
    write_int8(tmp_path, engines, mini.documents.sample(8))
    return tmp_path


@pytest.fixture(scope="module")
def teacher(mini: Source) -> Teacher:
    assert mini.documents
    return Teacher(mini.checkpoint, mini.documents.sample(8))


@pytest.fixture
def choose(
    folder: Path,
    engines: EngineConfig,
    mini: Source,
    teacher: Teacher,
    monkeypatch: pytest.MonkeyPatch,
) -> Choose:
    """Decides by these times of a step, not by the clock."""

    def choose(times: dict[str, float]) -> CrossKvChoice:
        monkeypatch.setattr(cross_kv_choice, "step_ms", lambda runners, documents: times)
        assert mini.documents
        return choose_cross_kv("auto", folder, engines, mini.documents, teacher)

    return choose


@pytest.mark.parametrize(("int8_ms", "kept"), [(0.5, "int8"), (1.5, "float")])
def test_the_graphs_that_are_not_taken_are_deleted(
    int8_ms: float, kept: str, folder: Path, choose: Choose
) -> None:
    times = {"float": 1.0, "int8": int8_ms}
    choice = choose(times)
    assert (choice.kept, choice.step_ms) == (kept, times)
    assert choice.int8_agreement is not None
    assert choice.int8_agreement > 0.99
    assert choice.float_agreement == 1.0
    assert all((folder / name).exists() is (kept == "int8") for name in CROSS_INT8_FILES)
    assert (folder / DECODER_FILE).exists()


def test_bytes_below_the_gate_are_not_taken_however_fast(
    folder: Path,
    engines: EngineConfig,
    mini: Source,
    choose: Choose,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coarse = {
        name: np.full((mini.shape.num_heads, mini.shape.head_dim), 10, np.float32)
        for name in bindings.of_layers(bindings.past_cross, mini.shape.num_decoder_layers)
    }
    monkeypatch.setattr(cross_kv_choice, "channel_scales", lambda *_: coarse)
    assert mini.documents
    write_int8(folder, engines, mini.documents)
    choice = choose({"float": 1.0, "int8": 0.5})
    assert choice.kept == "float"
    assert choice.reason.startswith("auto: int8 agrees on ")
    assert choice.int8_agreement is not None
    assert choice.int8_agreement < 0.9
    assert choice.agreement == choice.float_agreement == 1.0
    assert not any((folder / name).exists() for name in CROSS_INT8_FILES)


def test_a_step_of_each_is_timed(folder: Path, engines: EngineConfig, mini: Source) -> None:
    assert mini.documents
    times = step_ms({"float": open_runner(folder, engines)}, mini.documents.sample(8))
    assert times.keys() == {"float"}
    assert times["float"] > 0
