"""Engines that are none, or not the manifest's; what they compute is compared in tests/parity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kobart_runtime import bindings
from kobart_runtime.errors import EngineError
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE, EngineConfig, ModelShape
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner, open_session, run_session
from kobart_runtime.runners import open_runner
from tests.kobart_runtime.encoder_memory import taken_and_kept

SHAPE = ModelShape(num_decoder_layers=1, num_heads=1, head_dim=2, vocab_size=9, num_candidates=4)
GIVEN = bindings.past_self(0)[0]  # its type is that of the cache
CROSS = bindings.past_cross(0)[0]  # likewise, of the sources' part
STATES = bindings.present_cross(0)[0]  # likewise, as the encoder gives them


def write_graph(path: Path, outputs: dict[str, int], cross_type: int = TensorProto.FLOAT) -> None:
    """A graph that gives its input back under several names, each said to be [.., .., size]."""
    given = helper.make_tensor_value_info(GIVEN, TensorProto.FLOAT, ["R", "W", "X"])
    cross = helper.make_tensor_value_info(CROSS, cross_type, ["R", "W", "X"])
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["R", "W", size])
        for name, size in outputs.items()
    ]
    nodes = [helper.make_node("Identity", [GIVEN], [name]) for name in outputs]
    graph = helper.make_graph(nodes, "echo", [given, cross], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


SIZES = {bindings.LOGITS: SHAPE.vocab_size, bindings.CANDIDATE_IDS: SHAPE.num_candidates}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_graph(tmp_path / ENCODER_FILE, {STATES: 2})
    write_graph(tmp_path / DECODER_FILE, SIZES)
    return tmp_path


def test_engines_of_the_manifest_open(folder: Path) -> None:
    runner = OnnxRuntimeRunner(folder, SHAPE, num_threads=1)
    assert (runner.num_candidates, runner.vocab_size) == (4, 9)
    cache = runner.new_cache(2, 3, 5)
    assert [array.shape for array in cache.self_kv] == [(2, 1, 3, 2)] * 2
    assert [array.shape for array in cache.cross_kv] == [(2, 1, 5, 2)] * 2


def test_each_engine_has_the_threads_that_were_asked_for(folder: Path) -> None:
    """The calling thread works as well: a session of five starts four."""
    tasks = Path("/proc/self/task")
    engines = EngineConfig(runtime="onnxruntime", shape=SHAPE)
    before = len(list(tasks.iterdir()))
    runner = open_runner(folder, engines, num_threads=5)
    assert len(list(tasks.iterdir())) == before + 2 * 4
    del runner


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        ({bindings.LOGITS: 10, bindings.CANDIDATE_IDS: 4}, bindings.LOGITS),
        ({bindings.LOGITS: 9, bindings.CANDIDATE_IDS: 5}, bindings.CANDIDATE_IDS),
        ({bindings.LOGITS: 9}, bindings.CANDIDATE_IDS),
    ],
)
def test_an_engine_of_another_build_is_refused(
    folder: Path, sizes: dict[str, int], name: str
) -> None:
    write_graph(folder / DECODER_FILE, sizes)
    with pytest.raises(EngineError, match=rf"decoder\.onnx gives {name} .*; build again"):
        OnnxRuntimeRunner(folder, SHAPE, num_threads=1)


@pytest.mark.parametrize("content", [None, b"", b"no graph"])
def test_a_file_that_is_no_engine_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ENCODER_FILE
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=rf"{path} cannot be loaded"):
        open_session(path)


def test_what_the_engine_refuses_is_an_engine_error(folder: Path) -> None:
    session = open_session(folder / ENCODER_FILE, num_threads=1)
    states = np.ones((1, 1, 2), np.float32)
    feeds = {GIVEN: states, CROSS: states}
    assert run_session(session, [STATES], feeds)[0].tolist() == states.tolist()
    for wrong in ({}, {GIVEN: states.astype(np.int32), CROSS: states}, {"given": states[0]}):
        with pytest.raises(EngineError, match="ONNX Runtime failed: "):
            run_session(session, [STATES], wrong)


def test_caches_of_another_type_are_refused(folder: Path) -> None:
    model = onnx.load(folder / DECODER_FILE)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    onnx.save(model, folder / DECODER_FILE)
    with pytest.raises(EngineError, match=r"as tensor\(double\), it must be one of"):
        OnnxRuntimeRunner(folder, SHAPE, num_threads=1)


class _FixedEncoder:
    """Gives the same keys and values for whatever it is given."""

    def __init__(self, *states: np.ndarray) -> None:
        self._states = list(states)
        self.kv_dtype = states[0].dtype

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> list[np.ndarray]:
        return self._states

    def give_back_freed(self) -> None:
        pass


def test_keys_and_values_of_bytes_lie_as_the_engines_have_them(folder: Path) -> None:
    write_graph(folder / "bytes.onnx", SIZES, TensorProto.UINT8)
    key, value = np.arange(8, dtype=np.uint8).reshape(2, 1, 1, 2, 2)
    encoder = _FixedEncoder(key, value)
    runner = OnnxRuntimeRunner(
        folder, SHAPE, num_threads=1, encoder=encoder, decoder_file="bytes.onnx"
    )
    cache = runner.new_cache(2, 3, 5)
    assert [(array.dtype, array.shape) for array in cache.self_kv] == [
        (np.float32, (2, 1, 3, 2)),
        (np.float32, (2, 1, 3, 2)),
    ]
    assert [(array.dtype, array.shape) for array in cache.cross_kv] == [
        (np.uint8, (2, 1, 2, 5)),
        (np.uint8, (2, 1, 5, 2)),
    ]
    assert cache.entry_bytes == 4 * cache.source_bytes == 16
    one = np.ones((1, 2), np.int32)
    cache.put(1, runner.encode(one, one), 0, 2)
    np.testing.assert_array_equal(cache.cross_kv[0][1, :, :, :2], key[0])
    np.testing.assert_array_equal(cache.cross_kv[1][1, :, :2], value[0])


def test_an_encoder_of_another_build_is_refused(folder: Path) -> None:
    """numpy would convert float keys to bytes without a word."""
    write_graph(folder / "bytes.onnx", SIZES, TensorProto.UINT8)
    encoder = _FixedEncoder(np.ones((1, 1, 1, 2), np.float32))
    with pytest.raises(EngineError, match=r"values as float32, bytes\.onnx takes uint8; build ag"):
        OnnxRuntimeRunner(folder, SHAPE, num_threads=1, encoder=encoder, decoder_file="bytes.onnx")


def test_an_encoder_that_gives_nothing_for_the_decoder_is_refused(folder: Path) -> None:
    write_graph(folder / ENCODER_FILE, {"states": 2})
    with pytest.raises(EngineError, match=rf"encoder\.onnx has {STATES} as None, it must be"):
        OnnxRuntimeRunner(folder, SHAPE, num_threads=1)


def test_memory_of_a_large_encode_is_given_back(mini_build: Path) -> None:
    taken, kept = taken_and_kept(mini_build, "onnxruntime")
    assert taken > 50_000  # KiB
    assert kept < 0.2 * taken
