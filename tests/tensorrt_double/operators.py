"""What TensorRT's ONNX parser takes (`operators.json`), and what of a graph it would not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

MATRICES = json.loads((Path(__file__).parent / "operators.json").read_text(encoding="utf-8"))
# TensorRT 11 has no list of its own here: it is held to that of 10.
MATRIX_OF = {"8": "8.6", "10": "10.1", "11": "10.1"}
MAX_OPSET, MAX_IR = 17, 8  # of TensorRT 8.6
MAX_TOPK = 3839
TYPES: dict[int, str] = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.BOOL: "BOOL",
}
CONSTANT_AXES = {"Slice": 3, "Squeeze": 1, "Unsqueeze": 1, "ReduceSum": 1}  # operator -> input
DATA_INPUT = {"Where": 1}  # the others' first input says their type


def unsupported(model: onnx.ModelProto, major: str) -> list[str]:
    """One line for each node that TensorRT of this major version cannot take."""
    errors = [
        f"opset {opset.version} of {opset.domain or 'ai.onnx'}"
        for opset in model.opset_import
        if opset.domain not in ("", "ai.onnx") or opset.version > MAX_OPSET
    ]
    if model.ir_version > MAX_IR:
        errors.append(f"IR version {model.ir_version}")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = _Graph(inferred.graph)
    matrix = MATRICES["operators"][MATRIX_OF[major]]
    for node in inferred.graph.node:
        errors += [f"{node.op_type} {node.name}: {text}" for text in _check(node, graph, matrix)]
    return errors


class _Graph:
    """Element types and constants of a graph, by tensor name."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        values = [*graph.input, *graph.output, *graph.value_info]
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = node.attribute[0].t
            elif node.op_type == "Identity" and node.input[0] in self.constants:
                self.constants[node.output[0]] = self.constants[node.input[0]]
        self.types.update({name: tensor.data_type for name, tensor in self.constants.items()})


def _check(node: onnx.NodeProto, graph: _Graph, matrix: dict[str, list[str]]) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx") or node.op_type not in matrix:
        yield "the operator is not supported"
        return
    for name in _typed_tensors(node):
        kind = graph.types.get(name, TensorProto.UNDEFINED)
        if not _accepts(matrix[node.op_type], kind):
            yield f"{name} is {helper.tensor_dtype_to_string(kind)}"
    yield from _check_restrictions(node, graph)


def _typed_tensors(node: onnx.NodeProto) -> list[str]:
    names = [node.output[0]] if node.op_type in ("Cast", "Constant") else []
    if node.input:
        names.append(node.input[DATA_INPUT.get(node.op_type, 0)])
    return names


def _accepts(types: list[str], kind: int) -> bool:
    if kind == TensorProto.INT64:
        return "INT64" in types or "INT32" in types
    return TYPES.get(kind) in types


def _check_restrictions(node: onnx.NodeProto, graph: _Graph) -> Iterator[str]:
    axes = CONSTANT_AXES.get(node.op_type)
    if axes is not None and len(node.input) > axes and node.input[axes] not in graph.constants:
        yield "its axes are computed"
    if node.op_type == "TopK":
        k = graph.constants.get(node.input[1])
        if k is None or int(numpy_helper.to_array(k).max()) > MAX_TOPK:
            yield f"K must be a constant of at most {MAX_TOPK}"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
        zero_point = graph.constants.get(node.input[2])
        if zero_point is None or numpy_helper.to_array(zero_point).any():
            yield "its zero point must be a constant 0"
