"""What a graph computes in: products with weights count, tables that are looked up do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builders.artefact import read_back, together
from kobart_runtime.errors import BuildError

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
NUM_ROWS = 3


class Graph:
    """A hand-written graph: an embedding table, and products of what is looked up in it."""

    def __init__(self, table: type = np.float16) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self.constant("table", np.ones((1000, 8), table))
        self.node("Gather", "ids", "table", out="rows")
        self.node("Cast", "rows", out="x", to=FLOAT)
        self.node("Cast", "rows", out="x_half", to=HALF)

    def constant(self, name: str, values: np.ndarray) -> str:
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, operator: str, *inputs: str, out: str, domain: str = "", **attrs: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [out], domain=domain, **attrs))
        return out

    def scale(self, name: str, kind: type = np.float32) -> tuple[str, str]:
        """A scale and an int8 zero point."""
        return (
            self.constant(f"{name}_scale", np.array(0.1, kind)),
            self.constant(f"{name}_zero", np.array(0, np.int8)),
        )

    def dequantized(self, name: str, columns: int, kind: type = np.float32) -> str:
        """An int8 weight of 8 rows and its DequantizeLinear."""
        weight = self.constant(f"{name}_int8", np.ones((8, columns), np.int8))
        return self.node("DequantizeLinear", weight, *self.scale(name, kind), out=name)

    def quantized(self, name: str) -> str:
        """`x` through a Q/DQ pair."""
        scale = self.scale(name)
        self.node("QuantizeLinear", "x", *scale, out=f"{name}_int8")
        return self.node("DequantizeLinear", f"{name}_int8", *scale, out=name)

    def write(self, folder: Path) -> Path:
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [NUM_ROWS])
        last = self._nodes[-1].output[0]
        result = helper.make_tensor_value_info(last, FLOAT, None)
        graph = helper.make_graph(self._nodes, "graph", [ids], [result], self._constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        path = folder / "graph.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets), path)
        return path


def float_product(graph: Graph) -> None:
    graph.node("MatMul", "x", graph.constant("w", np.ones((8, 5), np.float32)), out="y")


def half_product(graph: Graph) -> None:
    graph.node("MatMul", "x_half", graph.constant("w", np.ones((8, 5), np.float16)), out="y")


def half_weight_as_float(graph: Graph) -> None:
    graph.node("Cast", graph.constant("w", np.ones((8, 5), np.float16)), out="wide", to=FLOAT)
    graph.node("MatMul", "x", "wide", out="y")


def transposed_head(graph: Graph) -> None:
    """The tied table, multiplied as it lies."""
    graph.node("Transpose", "table", out="head", perm=[1, 0])
    graph.node("MatMul", "x_half", "head", out="y")


def general_product(graph: Graph) -> None:
    weight = graph.constant("w", np.ones((5, 8), np.float32))
    graph.node("Gemm", "x", weight, graph.constant("b", np.ones(5, np.float32)), out="y", transB=1)


def qdq_product(graph: Graph) -> None:
    graph.node("MatMul", graph.quantized("q"), graph.dequantized("w", 5), out="y")


def int8_weight_alone(graph: Graph) -> None:
    graph.node("MatMul", "x", graph.dequantized("w", 5), out="y")


def int8_weight_alone_in_half(graph: Graph) -> None:
    graph.node("MatMul", "x_half", graph.dequantized("w", 5, np.float16), out="y")


def dynamic_product(graph: Graph) -> None:
    graph.node("DynamicQuantizeLinear", "x", out="bytes")
    graph._nodes[-1].output.extend(["bytes_scale", "bytes_zero"])
    graph.node("MatMulInteger", "bytes", graph.constant("w", np.ones((8, 5), np.uint8)), out="y")


def fused_dynamic_product(graph: Graph) -> None:
    weight = graph.constant("w", np.ones((8, 5), np.int8))
    scale, zero = graph.scale("w")
    operands = ("x", weight, scale, zero)
    graph.node("DynamicQuantizeMatMul", *operands, out="y", domain="com.microsoft")


def attention_and_float_product(graph: Graph) -> None:
    """A product of two activations has no weight, in whatever it is computed."""
    graph.node("Transpose", "x_half", out="keys", perm=[1, 0])
    graph.node("MatMul", "x_half", "keys", out="scores")
    float_product(graph)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (float_product, "fp32"),
        (half_product, "fp16"),
        (half_weight_as_float, "fp32"),
        (transposed_head, "fp16"),
        (general_product, "fp32"),
        (qdq_product, "int8"),
        (int8_weight_alone, "fp32"),
        (int8_weight_alone_in_half, "fp16"),
        (dynamic_product, "int8"),
        (fused_dynamic_product, "int8"),
        (attention_and_float_product, "fp32"),
    ],
)
def test_a_product_counts_as_what_is_multiplied(
    write: Callable[[Graph], None], expected: str, tmp_path: Path
) -> None:
    write(graph := Graph())
    artefact = read_back(graph.write(tmp_path))
    assert (artefact.precision, dict(artefact.products)) == (expected, {expected: 1.0})


def test_shares_are_those_of_the_weights_elements(tmp_path: Path) -> None:
    """The table has 200 times as many as both weights."""
    graph = Graph()
    graph.node("MatMul", graph.quantized("q"), graph.dequantized("narrow", 6), out="y")
    graph.node("MatMul", "x", graph.constant("wide", np.ones((8, 10), np.float32)), out="z")
    artefact = read_back(graph.write(tmp_path))
    assert artefact.products == {"fp32": 10 / 16, "int8": 6 / 16}
    assert (artefact.precision, artefact.precision_share) == ("fp32", 10 / 16)
    message = (
        r"precision int8 was asked for, the products of decoder\.onnx are 62\.5% fp32, 37\.5% int8"
    )
    with pytest.raises(BuildError, match=message):
        artefact.check("decoder.onnx", "int8")
    artefact.check("decoder.onnx", "fp32")


def test_a_file_without_products_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"graph\.onnx has no product with weights"):
        read_back(Graph().write(tmp_path))


def test_an_encoder_and_a_decoder_have_the_lower_share_and_both_quantizations(
    tmp_path: Path,
) -> None:
    found = []
    for index, write in enumerate((qdq_product, dynamic_product)):
        write(graph := Graph())
        graph.node("MatMul", "x", graph.constant("v", np.ones((8, index + 1), np.float32)), out="z")
        found.append(read_back(graph.write(tmp_path)))
    both = together(found)
    assert (both.precision, both.precision_share) == ("int8", 5 / 7)
    assert both.quantization == "qdq, dynamic-unsigned"
