"""What an ONNX file is, as read back from the file itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx

PRECISIONS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "int8",
}


# What makes an activation int8: a scale that the graph holds, or one that it measures each time.
QUANTIZERS = {"QuantizeLinear": "qdq", "DynamicQuantizeLinear": "dynamic"}


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """An engine file's own account of itself."""

    precision: str  # of the greater part of its weights; int8 means int8 activations too
    precision_share: float  # that part of all weights, 0..1
    opset: int | None  # of the default ONNX domain; None: it is no ONNX file
    quantization: str | None = None  # "qdq", "dynamic", "dynamic-unsigned" (precision.py) or two


def read_back(path: Path) -> Artefact:
    """Read precision and opset from an ONNX file.

    Integer tables (positions, masks) are no weights and do not count. A graph that stores weights
    in int8 and computes in float is "int8 weights", not int8.
    """
    model = onnx.load(path)
    weights: Counter[str] = Counter()
    for tensor in _constants(model.graph):
        if tensor.data_type in PRECISIONS:
            weights[PRECISIONS[tensor.data_type]] += prod(tensor.dims)
    (precision, count), *_ = weights.most_common(1)
    quantization = _quantization(model.graph)
    if precision == "int8" and quantization is None:
        precision = "int8 weights"
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return Artefact(
        precision=precision,
        precision_share=count / weights.total(),
        opset=opset,
        quantization=quantization,
    )


def _quantization(graph: onnx.GraphProto) -> str | None:
    found = {QUANTIZERS[node.op_type] for node in graph.node if node.op_type in QUANTIZERS}
    if "dynamic" not in found:
        return next(iter(found), None)
    unsigned = any(
        tensor.data_type == onnx.TensorProto.UINT8 and len(tensor.dims) == 2
        for tensor in graph.initializer
    )
    return "dynamic-unsigned" if unsigned else "dynamic"


def _constants(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    nodes = [node for node in graph.node if node.op_type == "Constant"]
    values = [
        attribute.t for node in nodes for attribute in node.attribute if attribute.HasField("t")
    ]
    return [*graph.initializer, *values]
