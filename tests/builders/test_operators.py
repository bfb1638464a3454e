"""Every operator and type of the exported graphs is in TensorRT's supported set."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.tensorrt_double.operators import MATRICES, unsupported


@pytest.mark.parametrize("major", ["8", "10", "11"])
@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx"])
def test_tensorrt_takes_the_exported_graphs(mini_build: Path, name: str, major: str) -> None:
    graph = onnx.load(mini_build / "kobart" / "1" / name)
    assert unsupported(graph, major) == []


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
