"""Candidates found in groups are those of the whole vocabulary, ties included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builders.cpu_candidates import group_candidates, group_size
from builders.graph_editing import rewriting
from kobart_runtime import bindings
from kobart_runtime.onnxruntime_runner import open_session

OUTPUTS = [bindings.CANDIDATE_LOGPROBS, bindings.CANDIDATE_IDS]


def write_head(path: Path, vocab_size: int, num_candidates: int) -> None:
    """What stands behind a decoder's last product, in the form that the border has."""
    given, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["R", "W", vocab_size])
        for name in ("given", bindings.LOGITS)
    )
    outputs = [
        helper.make_tensor_value_info(name, kind, ["R", "W", num_candidates])
        for name, kind in zip(OUTPUTS, (TensorProto.FLOAT, TensorProto.INT32), strict=True)
    ]
    nodes = [
        helper.make_node("Identity", ["given"], [bindings.LOGITS]),
        helper.make_node("TopK", [bindings.LOGITS, "k"], [OUTPUTS[0], "ids"]),
        helper.make_node("Cast", ["ids"], [OUTPUTS[1]], to=TensorProto.INT32),
    ]
    k = numpy_helper.from_array(np.array([num_candidates]), "k")
    graph = helper.make_graph(nodes, "head", [given], [logits, *outputs], [k])
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("kind", ["distinct", "ties", "one peak", "all alike"])
@pytest.mark.parametrize(("vocab_size", "num_candidates"), [(600, 4), (1024, 8), (601, 4)])
def test_they_are_the_best_the_lower_id_first(
    vocab_size: int, num_candidates: int, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "head.onnx"
    write_head(path, vocab_size, num_candidates)
    with rewriting(path) as graph:
        group_candidates(graph)
    assert ("GatherND" in operators(path)) is (vocab_size != 601)  # a prime has no groups
    rng = np.random.default_rng(vocab_size)
    logits = {
        "distinct": rng.normal(size=(3, 2, vocab_size)) * 5,
        "ties": rng.integers(-3, 3, (3, 2, vocab_size)),
        "one peak": np.eye(6, vocab_size, 300).reshape(3, 2, vocab_size) * 1000,
        "all alike": np.full((3, 2, vocab_size), -7.5),
    }[kind].astype(np.float32)
    logprobs, ids = open_session(path).run(OUTPUTS, {"given": logits})
    order = np.argsort(-logits, axis=-1, kind="stable")[..., :num_candidates]
    np.testing.assert_array_equal(ids, order)
    assert (ids.dtype, logprobs.dtype) == (np.int32, np.float32)
    exact = logits.astype(np.float64)
    exact -= exact.max(-1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(-1, keepdims=True))
    expected = np.take_along_axis(exact, order, -1)
    np.testing.assert_allclose(logprobs, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("vocab_size", "num_candidates", "size"),
    [
        (30000, 32, 40),  # KoBART's: 750 groups
        (30000, 256, 1),  # so many candidates that nothing is won
        (30011, 32, 1),  # a prime
        (160, 16, 1),
        (4, 4, 1),
    ],
)
def test_groups_are_made_where_they_are_worth_it(
    vocab_size: int, num_candidates: int, size: int
) -> None:
    assert group_size(vocab_size, num_candidates) == size
