"""What the engine inspector says of a plan's layers: names, and types once shapes are known."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto

from tests.tensorrt_double.plan import Plan

WORDS: dict[int, str] = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.INT8: "Int8",
    TensorProto.INT32: "Int32",
    TensorProto.BOOL: "Bool",
}
UNKNOWN = "N/A due to dynamic shapes"


def describe_layers(plan: Plan, *, with_types: bool) -> list[dict[str, Any]]:
    """One entry a node; without detailed verbosity names alone."""
    if plan.settings["verbosity"] not in ("DETAILED", "VERBOSE"):
        return []
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(plan.graph)).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    return [
        {
            "Name": node.name,
            "Outputs": [
                {
                    "Name": name,
                    "Format/Datatype": _word(plan, node, types.get(name, 0))
                    if with_types
                    else UNKNOWN,
                }
                for name in node.output
            ],
        }
        for node in graph.node
    ]


def _word(plan: Plan, node: onnx.NodeProto, kind: int) -> str:
    """Flags let floats be something shorter, calibration products with weights int8."""
    if kind == TensorProto.FLOAT and node.op_type in ("MatMul", "Add"):
        if plan.settings["calibration"]:
            return "Row major Int8 format"
        if "FP16" in plan.flags:
            return "Row major linear FP16 format"
    return WORDS.get(kind, "unknown")
