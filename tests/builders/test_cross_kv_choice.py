"""What is left of the graphs once it is decided how cross-attention K/V are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders import cross_kv_choice
from builders.agreement import Teacher
from builders.choosing import Policy, cross_kv
from builders.cross_kv import channel_scales
from builders.cross_kv_choice import (
    CrossKvChoice,
    choose_cross_kv,
    keep_floats,
    open_engine_models,
    step_ms,
    tries_int8,
    write_int8,
)
from builders.export import export_decoder, export_encoder
from builders.pipeline import Source
from builders.precision import AGREEMENT_GATES
from builders.processor import Processor
from calibration.documents import pad
from kobart_runtime import bindings
from kobart_runtime.float_kv_encoder import FloatKvEncoder
from kobart_runtime.model_config import (
    CROSS_FLOAT_FILE,
    CROSS_INT8_FILES,
    DECODER_FILE,
    ENCODER_FILE,
    EngineConfig,
)
from kobart_runtime.runners import open_encoder, open_runner

Choose = Callable[[dict[str, float]], CrossKvChoice]
GATE = AGREEMENT_GATES["int8"]
AVX2 = Processor(name="AMD EPYC", flags=("avx2",))
AMX = Processor(name="Intel Xeon", flags=("avx2", "avx512f", "avx512_vnni", "amx_int8"))


def policy_of(processor: Processor, *, tune: bool = False) -> Policy:
    return Policy(processor=processor, tune=tune, gate=GATE)


def chosen(
    policy: Policy, folder: Path, engines: EngineConfig, source: Source, teacher: Teacher
) -> CrossKvChoice:
    assert source.documents
    return choose_cross_kv("auto", policy, folder, engines, source.documents, teacher)


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
        return chosen(policy_of(AVX2, tune=True), folder, engines, mini, teacher)

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
    files = (*CROSS_INT8_FILES, CROSS_FLOAT_FILE)
    assert all((folder / name).exists() is (kept == "int8") for name in files)
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
    assert choice.fell_back
    assert choice.reason.startswith("int8 agrees on ")
    assert choice.reason.endswith(" of the tokens, gate 97.0%: float instead")
    assert choice.int8_agreement is not None
    assert choice.int8_agreement < 0.9
    assert choice.agreement == choice.float_agreement == 1.0
    assert not any((folder / name).exists() for name in CROSS_INT8_FILES)


def test_with_amx_bytes_are_taken_untimed(
    folder: Path, engines: EngineConfig, mini: Source, teacher: Teacher
) -> None:
    assert tries_int8("auto", policy_of(AMX))
    choice = chosen(policy_of(AMX), folder, engines, mini, teacher)
    assert (choice.kept, choice.step_ms, choice.fell_back) == ("int8", {}, False)
    assert choice.reason == cross_kv(AMX).reason


def test_without_amx_bytes_are_not_even_tried_unless_asked_for_or_tuned() -> None:
    assert not tries_int8("auto", policy_of(AVX2))
    assert not tries_int8("float", policy_of(AMX, tune=True))
    assert tries_int8("auto", policy_of(AVX2, tune=True))
    assert tries_int8("int8", policy_of(AVX2))
    assert keep_floats("auto", policy_of(AVX2)).reason == cross_kv(AVX2).reason
    assert keep_floats("float", policy_of(AMX)).reason == "as asked"


def test_the_engine_models_encoder_gives_the_floats_of_the_front_models_bytes(
    folder: Path, engines: EngineConfig, mini: Source, teacher: Teacher
) -> None:
    """Turned back by hand: a byte is 128 more than its number, and keys lie with D before S."""
    assert mini.documents
    bytes_of = open_encoder(folder, replace(engines, cross_kv="int8"))
    scales = channel_scales(
        open_encoder(folder, engines), mini.documents.sample(8).documents, mini.shape
    )
    encoder = FloatKvEncoder(bytes_of, folder / CROSS_FLOAT_FILE, mini.shape)
    ids, mask = pad([each.input_ids for each in mini.documents.sample(3).documents])
    states = [array.copy() for array in bytes_of.encode(ids, mask)]
    floats = encoder.encode(ids, mask)
    exact = open_encoder(folder, engines).encode(ids, mask)
    for index, (name, given) in enumerate(zip(scales, floats, strict=True)):
        numbers = states[index].swapaxes(2, 3) if name.endswith(".key") else states[index]
        expected = (numbers.astype(np.float32) - 128) * scales[name][None, :, None, :]
        np.testing.assert_array_equal(given, expected, err_msg=name)
        assert (given.dtype, given.shape) == (exact[index].dtype, exact[index].shape)
    assert teacher.agreement_of(open_engine_models(folder, engines)) > 0.99


def test_both_graphs_of_the_engine_models_encoder_have_the_threads_that_were_asked_for(
    folder: Path, engines: EngineConfig, mini: Source
) -> None:
    """The calling thread works as well: a session of five starts four."""
    tasks = Path("/proc/self/task")
    bytes_of = open_encoder(folder, replace(engines, cross_kv="int8"), num_threads=1)
    before = len(list(tasks.iterdir()))
    encoder = FloatKvEncoder(bytes_of, folder / CROSS_FLOAT_FILE, mini.shape, num_threads=5)
    assert len(list(tasks.iterdir())) == before + 4
    del encoder


def test_a_step_of_each_is_timed(folder: Path, engines: EngineConfig, mini: Source) -> None:
    assert mini.documents
    times = step_ms({"float": open_runner(folder, engines)}, mini.documents.sample(8))
    assert times.keys() == {"float"}
    assert times["float"] > 0
