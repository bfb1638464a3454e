"""The products of an ONNX graph that have constant weights: what int8 can take over."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx


@dataclass(frozen=True)
class WeightProduct:
    """A MatMul of an activation with a constant matrix."""

    node: str  # its name
    activation: str  # tensor, float[R, T, M]
    weight: str  # initializer, float[M, N]


def weight_products(model: onnx.ModelProto) -> list[WeightProduct]:
    """All of a graph's products with weights, in its order; attention's own are none."""
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return [
        WeightProduct(node.name, node.input[0], node.input[1])
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights
    ]


def with_outputs(model: onnx.ModelProto, tensors: Collection[str]) -> bytes:
    """The graph, serialised, extended so that it gives these tensors as well."""
    known = {output.name for output in model.graph.output}
    # ONNX Runtime infers the types; naming the tensors is enough.
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in tensors if name not in known
    )
    return bytes(model.SerializeToString())


def with_peaks(model: onnx.ModelProto, tensors: Sequence[str]) -> dict[str, str]:
    """Extend a graph by the largest magnitude of some tensors.

    Returns:
        Tensor -> the new tensor, a float32 scalar.
    """
    names = {name: f"{name}_peak" for name in tensors}
    for name, peak in names.items():
        absolute = onnx.helper.make_node("Abs", [name], [f"{name}_magnitude"])
        largest = onnx.helper.make_node("ReduceMax", [f"{name}_magnitude"], [peak], keepdims=0)
        model.graph.node.extend([absolute, largest])
    return names
