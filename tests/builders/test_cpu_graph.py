"""The decode step laid out for CPUs computes what the portable one does."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from builders.cpu_graph import keep_beams_apart
from builders.graph_editing import rewriting
from builders.half_precision import convert_to_half
from builders.quantize_dynamic import write_dynamic
from kobart_runtime import bindings
from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE
from kobart_runtime.onnxruntime_runner import open_session
from tests.tensorrt_double.plans import SHAPE

LAYERS = range(SHAPE.num_decoder_layers)
OUTPUTS = [
    bindings.LOGITS,
    *bindings.of_layers(bindings.present_self, SHAPE.num_decoder_layers),
]
# Largest difference of logits of about 10: products of other shapes sum in another order.
TOLERANCES = {"fp32": 1e-4, "fp16": 0.1, "int8": 1e-2}


def feeds(num_requests: int, num_beams: int, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """One step over random caches; each source and each beam sees another part of them."""
    rng = np.random.default_rng(num_requests * 10 + num_beams)
    source_len, num_entries = 7, 5
    source = np.arange(source_len) < rng.integers(1, source_len, (num_requests, 1), endpoint=True)
    visible = rng.integers(0, 2, (num_requests, num_beams, num_entries))
    filled = {
        bindings.DECODER_INPUT_IDS: rng.integers(0, SHAPE.vocab_size, (num_requests, num_beams)),
        bindings.POSITION_IDS: rng.integers(0, 9, (num_requests, 1)),
        bindings.ENCODER_ATTENTION_MASK: source,
        bindings.DECODER_ATTENTION_MASK: visible,
    }
    step = {name: array.astype(np.int32) for name, array in filled.items()}
    for layer in LAYERS:
        for names, length in (
            (bindings.past_self(layer), num_entries),
            (bindings.past_cross(layer), source_len),
        ):
            shape = (num_requests, SHAPE.num_heads, length, SHAPE.head_dim)
            step |= {name: rng.normal(size=shape).astype(dtype) for name in names}
    return step


def write(precision: str, source: Path, target: Path) -> None:
    if precision == "fp16":
        convert_to_half(source, target, [feeds(2, 3)])
    elif precision == "int8":
        write_dynamic(source, target)
    else:
        shutil.copy(source, target)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_nothing_changes_but_the_layout(precision: str, tiny_graphs: Path, tmp_path: Path) -> None:
    portable, apart = tmp_path / "portable.onnx", tmp_path / "apart.onnx"
    write(precision, tiny_graphs / DECODER_FILE, portable)
    shutil.copy(portable, apart)
    with rewriting(apart) as graph:
        keep_beams_apart(graph, SHAPE.num_decoder_layers)
    before, after = open_session(portable), open_session(apart)
    dtype = np.float16 if precision == "fp16" else np.float32
    for num_requests, num_beams in ((1, 1), (3, 1), (1, 4), (3, 4)):
        step = feeds(num_requests, num_beams, dtype)
        expected, given = before.run(OUTPUTS, step), after.run(OUTPUTS, step)
        for name, one, other in zip(OUTPUTS, expected, given, strict=True):
            assert one.shape == other.shape, name
            np.testing.assert_allclose(other, one, atol=TOLERANCES[precision], rtol=0)


def test_every_product_with_a_source_has_one_row(tiny_graphs: Path, tmp_path: Path) -> None:
    path = tmp_path / DECODER_FILE
    shutil.copy(tiny_graphs / DECODER_FILE, path)
    with rewriting(path) as graph:
        keep_beams_apart(graph, SHAPE.num_decoder_layers)
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    ranks = {info.name: len(info.type.tensor_type.shape.dim) for info in graph.value_info}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    wide = [node for node in products if ranks[node.output[0]] == 5]
    assert len(wide) == 2 * SHAPE.num_decoder_layers  # with keys, with values


def test_a_hard_link_to_the_portable_graph_is_left_alone(tiny_graphs: Path, tmp_path: Path) -> None:
    portable, linked = tmp_path / "portable.onnx", tmp_path / "linked.onnx"
    shutil.copy(tiny_graphs / DECODER_FILE, portable)
    linked.hardlink_to(portable)
    before = portable.read_bytes()
    with rewriting(linked) as graph:
        keep_beams_apart(graph, SHAPE.num_decoder_layers)
    assert portable.read_bytes() == before
    assert linked.read_bytes() != before


def test_another_graph_is_refused(tiny_graphs: Path, tmp_path: Path) -> None:
    path = tmp_path / DECODER_FILE
    shutil.copy(tiny_graphs / DECODER_FILE, path)
    with rewriting(path) as graph:
        keep_beams_apart(graph, SHAPE.num_decoder_layers)
    wrong = pytest.raises(BuildError, match=r"no graph that builders/export\.py wrote")
    with wrong, rewriting(path) as graph:
        keep_beams_apart(graph, SHAPE.num_decoder_layers)  # a second time


def test_no_shape_is_worked_out_in_a_decode_step(tiny_graphs: Path) -> None:
    """At batch 1 that took a sixth of the time."""
    nodes = onnx.load(tiny_graphs / DECODER_FILE).graph.node
    assert not [node.name for node in nodes if node.op_type in ("Shape", "ConstantOfShape")]


def test_the_encoder_works_out_one_shape_alone(tiny_graphs: Path) -> None:
    """The length of the sources, which says how many positions are added."""
    nodes = onnx.load(tiny_graphs / ENCODER_FILE).graph.node
    assert sum(node.op_type == "Shape" for node in nodes) == 1
