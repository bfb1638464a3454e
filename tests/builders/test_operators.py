"""Every operator and type of the exported graphs is in TensorRT's supported set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from builders.int8_half import write_int8_half
from builders.optimizer_graphs import document_set, export_graphs, half_graphs
from builders.pruning import ModelPruner
from builders.quantize_qdq import quantize_qdq
from calibration import calibrate
from calibration.scales import GRAPH_FILES
from kobart_runtime.settings import Limits
from tests.tensorrt_double.operators import MATRICES, unsupported
from tests.tensorrt_double.plans import SHAPE, tiny_model


@pytest.mark.parametrize("major", ["8", "10", "11"])
@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx"])
def test_tensorrt_takes_the_exported_graphs(mini_build: Path, name: str, major: str) -> None:
    graph = onnx.load(mini_build / "kobart" / "1" / name)
    assert unsupported(graph, major) == []


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with both graphs for every kind that plans are built from."""
    limits = Limits(max_source_length=40, max_target_length=8)
    documents = [(range(5, 25), range(30, 36)), (range(40, 47), range(50, 53))]
    folders = {}
    pruned = ModelPruner().structured_pruning(tiny_model(), amount=0.5)
    models = {"whole": (tiny_model(), SHAPE), "pruned": (pruned, replace(SHAPE, num_heads=1))}
    for name, (model, shape) in models.items():
        graphs = tmp_path_factory.mktemp(name)
        export_graphs(model, graphs, shape)
        folders[f"{name} fp32"] = graphs
        folders[f"{name} fp16"] = half_graphs(graphs, shape, limits)
        calibration = document_set(documents, 2, shape.vocab_size, limits)
        folders[f"{name} int8"] = tmp_path_factory.mktemp("int8")
        quantized = tmp_path_factory.mktemp("qdq")
        scales = calibrate(graphs, shape, calibration, method="minmax").scales  # quick
        for file in GRAPH_FILES:
            quantize_qdq(graphs / file, quantized / file, scales[file], [])
        files = {file: file for file in GRAPH_FILES}
        write_int8_half(quantized, files, folders[f"{name} int8"], shape, calibration)
    return folders


@pytest.mark.parametrize("major", ["8", "10", "11"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("model", ["whole", "pruned"])
def test_tensorrt_takes_every_kind_of_graph(
    kinds: dict[str, Path], model: str, precision: str, major: str
) -> None:
    for name in GRAPH_FILES:
        graph = onnx.load(kinds[f"{model} {precision}"] / name)
        assert unsupported(graph, major) == []
        operators = {node.op_type for node in graph.graph.node}
        assert ("QuantizeLinear" in operators) == (precision == "int8")
        types = {tensor.data_type for tensor in graph.graph.initializer}
        assert (TensorProto.FLOAT16 in types) == (precision in ("fp16", "int8"))


def test_the_list_says_where_it_is_from() -> None:
    assert "onnx-tensorrt" in MATRICES["source"]
    assert set(MATRICES["operators"]) == {"8.6", "10.1"}


def model_of(
    operator: str, kind: int, inputs: list[str], *, output: int = 0, opset: int = 17
) -> onnx.ModelProto:
    node = helper.make_node(operator, inputs, ["out"])
    values = [helper.make_tensor_value_info(name, kind, [2, 3]) for name in dict.fromkeys(inputs)]
    result = helper.make_tensor_value_info("out", output or kind, [2, 3])
    graph = helper.make_graph([node], "one", values, [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (model_of("Hardmax", TensorProto.FLOAT, ["x"]), "not supported"),
        (model_of("Erf", TensorProto.INT32, ["x"]), "INT32"),
        (model_of("Add", TensorProto.DOUBLE, ["x", "y"]), "DOUBLE"),
        (model_of("Add", TensorProto.FLOAT, ["x", "y"], opset=18), "opset 18"),
    ],
)
def test_what_tensorrt_does_not_take_is_found(model: onnx.ModelProto, message: str) -> None:
    assert any(message in error for error in unsupported(model, "8"))
