"""The TorchScript runner against ONNX Runtime's on the same tiny model, and what it refuses."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.torchscript import trace_decoder, trace_encoder
from kobart_runtime import bindings
from kobart_runtime.errors import EngineError
from kobart_runtime.generation_loop import GenerationLoop
from kobart_runtime.metrics import Metrics
from kobart_runtime.model_config import (
    EngineConfig,
    ModelConfig,
    ModelShape,
    TokenIds,
    TokenizerConfig,
)
from kobart_runtime.model_runner import ModelRunner, StepInputs
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner
from kobart_runtime.request import Request
from kobart_runtime.runners import open_runner
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings
from kobart_runtime.torchscript_runner import (
    DECODER_FILE,
    ENCODER_FILE,
    TorchScriptEngine,
    TorchScriptRunner,
)
from tests.fakes import RecordingListener
from tests.tensorrt_double.plans import LIMITS, SHAPE, export_tiny, tiny_model

CONFIG = ModelConfig(
    name="tiny",
    runtime="torchscript",
    encoder_engine="torchscript",
    precision="fp32",
    ids=TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2, forced_eos=1),
    shape=SHAPE,
    tokenizer=TokenizerConfig(),
    limits=LIMITS,
    defaults=GenerationSettings(),
    artefacts={},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model for both runtimes."""
    folder = tmp_path_factory.mktemp("engines")
    export_tiny(folder)
    trace_encoder(tiny_model(), folder / ENCODER_FILE)
    trace_decoder(tiny_model(), folder / DECODER_FILE, SHAPE.num_candidates)
    return folder


@pytest.fixture(scope="module")
def runner(folder: Path) -> TorchScriptRunner:
    return TorchScriptRunner(folder, SHAPE)


@pytest.mark.parametrize(("asked", "used"), [(1, 1), (3, 3), (0, 2)])
def test_pytorch_has_the_threads_that_were_asked_for(folder: Path, asked: int, used: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        open_runner(folder, EngineConfig(runtime="torchscript", shape=SHAPE), num_threads=asked)
        assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)


def random_requests(count: int) -> list[tuple[list[int], GenerationSettings]]:
    rng = random.Random(5)
    return [
        (
            [rng.randrange(SHAPE.vocab_size) for _ in range(rng.choice([1, 5, 40, 100, 150]))],
            GenerationSettings(
                num_beams=rng.choice([1, 1, 2, 4]),
                max_new_tokens=rng.choice([1, 8, 20]),
                no_repeat_ngram_size=rng.choice([0, 2]),
                repetition_penalty=rng.choice([1.0, 1.3]),
            ),
        )
        for _ in range(count)
    ]


def generate(
    runner: ModelRunner, requests: list[tuple[list[int], GenerationSettings]]
) -> list[Generated]:
    loop = GenerationLoop(runner, CONFIG, Metrics())
    listeners = [RecordingListener() for _ in requests]
    for (source, settings), listener in zip(requests, listeners, strict=True):
        loop.submit(Request(np.array(source, np.int32), settings, listener))
    results = [listener.result() for listener in listeners]
    loop.close()
    return results


def test_summaries_are_those_of_onnx_runtime(runner: TorchScriptRunner, folder: Path) -> None:
    requests = random_requests(24)
    assert generate(runner, requests) == generate(OnnxRuntimeRunner(folder, SHAPE), requests)


def test_the_encoder_gives_what_onnx_runtime_gives(runner: TorchScriptRunner, folder: Path) -> None:
    ids = np.arange(10, dtype=np.int32).reshape(2, 5)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], np.int32)
    expected = OnnxRuntimeRunner(folder, SHAPE).encode(ids, mask)
    for ours, theirs in zip(runner.encode(ids, mask), expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_step_reads_the_cache_and_writes_its_own_entries_alone(runner: TorchScriptRunner) -> None:
    ids = np.ones((2, 5), np.int32)
    cache = runner.new_cache(4, 3, 8)  # more room than is in use
    for row, encoded in enumerate([runner.encode(ids, ids)] * 2):
        cache.put(row, encoded, row, 5)
    for array in cache.self_kv:
        array[:] = 7
    inputs = StepInputs(
        decoder_input_ids=np.array([[3], [4]], np.int32),
        position_ids=np.zeros((2, 1), np.int32),
        decoder_attention_mask=np.zeros((2, 1, 3), np.int32),
        new_entries=np.array([[2], [0]]),
    )
    output = runner.decode_step(cache, inputs, want_logits=False)
    assert output.logits is None
    written = [np.argwhere((array != 7).any(axis=(1, 3))).tolist() for array in cache.self_kv]
    assert written == [[[0, 2], [1, 0]]] * len(cache.self_kv)
    again = runner.decode_step(cache, inputs, want_logits=True)
    assert again.logits is not None
    np.testing.assert_array_equal(again.candidate_ids, output.candidate_ids)
    np.testing.assert_array_equal(again.logits.argmax(-1), output.candidate_ids[..., 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"vocab_size": 98},
            r"decoder\.pt gives logits \[1, 1, 97\], the manifest says \[1, 1, 98",
        ),
        ({"num_candidates": 15}, r"decoder\.pt gives candidate_ids \[1, 1, 16\]"),
        ({"head_dim": 4}, r"encoder\.pt gives present\.0\.encoder\.key \[1, 2, 1, 3\]"),
        ({"num_decoder_layers": 3}, r"encoder\.pt gives 4 tensors, the manifest says 6"),
    ],
)
def test_an_engine_of_another_build_is_refused(
    folder: Path, change: dict[str, int], message: str
) -> None:
    other: ModelShape = replace(SHAPE, **change)
    with pytest.raises(EngineError, match=rf"{message}.*; build again"):
        TorchScriptRunner(folder, other)


@pytest.mark.parametrize("content", [None, b"", b"no module"])
def test_a_file_that_is_no_engine_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ENCODER_FILE
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=rf"{path} cannot be loaded: \w+"):
        TorchScriptEngine.open(tmp_path, "encoder", SHAPE)


def test_a_machine_without_pytorch_is_told_what_it_lacks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(
        open_runner(folder, EngineConfig(runtime="torchscript", shape=SHAPE)), TorchScriptRunner
    )
    monkeypatch.delitem(sys.modules, TorchScriptRunner.__module__)
    monkeypatch.setitem(sys.modules, "torch", None)
    message = r"this build needs PyTorch, .*torch.*: pip install torch"
    with pytest.raises(EngineError, match=message):
        open_runner(folder, EngineConfig(runtime="torchscript", shape=SHAPE))


def test_what_the_engine_refuses_is_an_engine_error(folder: Path) -> None:
    engine = TorchScriptEngine.open(folder, "encoder", SHAPE)
    ids = np.ones((1, 2), np.int32)
    feeds = {bindings.INPUT_IDS: ids, bindings.ATTENTION_MASK: ids}
    bad_feeds: list[tuple[dict[str, np.ndarray], str]] = [
        ({bindings.INPUT_IDS: ids}, "there is no tensor 'attention_mask'"),
        ({**feeds, bindings.INPUT_IDS: ids * SHAPE.vocab_size}, "index out of range"),
        ({**feeds, bindings.INPUT_IDS: ids.astype(np.float32)}, "Expected tensor .* Long, Int"),
        ({**feeds, bindings.ATTENTION_MASK: ids[:, :1].repeat(3, 1)}, "must match the size"),
        ({**feeds, bindings.INPUT_IDS: np.array([["a"]])}, "can't convert np.ndarray"),
    ]
    for bad, message in bad_feeds:
        with pytest.raises(EngineError, match=f"^TorchScript failed: .*{message}"):
            engine.run(engine.outputs, bad)
    assert len(engine.run(engine.outputs[:1], feeds)) == 1
