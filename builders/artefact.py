"""What an ONNX file computes in, as read back from the file itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import onnx

from kobart_runtime.errors import BuildError

PRECISIONS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
}
_INT8_TYPES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)

# What makes an activation int8: a scale that the graph holds, or one that it measures each time.
QUANTIZERS = {"QuantizeLinear": "qdq", "DynamicQuantizeLinear": "dynamic"}

# Product -> where its two matrices stand among its inputs.
_FLOAT_PRODUCTS = {"MatMul": (0, 1), "Gemm": (0, 1)}
_INT8_PRODUCTS = {
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (0, 1),
    "QLinearMatMul": (0, 3),
}
_SAME_NUMBERS = ("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze")

PRECISION_SHARE_OF = (
    "multiply-accumulates of a token in products with weights (MatMul, Gemm), by the type that is "
    "multiplied; embedding tables are looked up and do not count, the head's product does"
)


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """An engine file's own account of itself."""

    products: Mapping[str, float]  # precision -> share, 0..1, see PRECISION_SHARE_OF; largest first
    opset: int | None  # of the default ONNX domain; None: it is no ONNX file
    quantization: str | None = None  # "qdq", "dynamic", "dynamic-unsigned" (precision.py) or two

    @property
    def precision(self) -> str:
        """Of the greater part of the products; int8 means int8 weights and activations."""
        return next(iter(self.products))

    @property
    def precision_share(self) -> float:
        """That part of all products, 0..1."""
        return self.products[self.precision]

    def check(self, name: str, precision: str) -> None:
        """Refuse a file that does not compute in what was asked for.

        Args:
            name: Of the file.
            precision: That was asked for.

        Raises:
            BuildError: The greater part of its products is of another precision.
        """
        if self.precision != precision:
            shares = ", ".join(f"{share:.1%} {each}" for each, share in self.products.items())
            raise BuildError(
                f"precision {precision} was asked for, the products of {name} are {shares}: "
                f"ask for --precision {self.precision}"
            )


def read_back(path: Path) -> Artefact:
    """Read precision and opset from an ONNX file.

    Every product with a weight is counted by the weight's elements: each is multiplied once a
    token. Weights that are stored in int8 and multiplied as floats count as floats.

    Raises:
        BuildError: The graph has no product with weights.
    """
    model = onnx.load(path)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return Artefact(
        products=shares_of(_count_products(model.graph), path),
        opset=opset,
        quantization=_quantization(model.graph),
    )


def together(artefacts: Sequence[Artefact]) -> Artefact:
    """A build's encoder and decoder as one: the lower share, and both ways of quantization.

    Args:
        artefacts: Of one precision.
    """
    ways = dict.fromkeys(each.quantization for each in artefacts if each.quantization)
    lower = min(artefacts, key=lambda each: each.precision_share)
    return replace(lower, quantization=", ".join(ways) or None)


def shares_of(elements: Counter[str], path: Path) -> dict[str, float]:
    """Elements of weights by precision to shares, the largest first.

    Raises:
        BuildError: There are none.
    """
    if not elements:
        raise BuildError(f"{path} has no product with weights: it is no engine of this project")
    total = elements.total()
    return {precision: count / total for precision, count in elements.most_common()}


def _count_products(graph: onnx.GraphProto) -> Counter[str]:
    """Precision -> elements of the weights that are multiplied in it."""
    tensors = _Tensors(graph)
    counts: Counter[str] = Counter()
    for node in graph.node:
        places = _FLOAT_PRODUCTS.get(node.op_type) or _INT8_PRODUCTS.get(node.op_type)
        if places is None:
            continue
        operands = [node.input[place] for place in places]
        weights = [found for name in operands if (found := tensors.weight(name))]
        if len(weights) != 1:
            continue  # attention's own products, or nothing but constants
        [(elements, precision)] = weights
        if node.op_type in _INT8_PRODUCTS or all(map(tensors.is_dequantized, operands)):
            precision = "int8"
        counts[precision] += elements
    return counts


class _Tensors:
    """The tensors of a graph, traced to where they come from."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {name: node for node in graph.node for name in node.output}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].HasField("t"):
                self._constants[node.output[0]] = node.attribute[0].t

    def weight(self, name: str) -> tuple[int, str] | None:
        """A constant's elements and the precision it is multiplied in; None: it is no constant."""
        if name in self._constants:
            tensor = self._constants[name]
            return prod(tensor.dims), PRECISIONS.get(tensor.data_type, "other")
        node = self._producers.get(name)
        if node is None or node.op_type not in (*_SAME_NUMBERS, "Cast", "DequantizeLinear"):
            return None
        found = self.weight(node.input[0])
        if found is None or node.op_type in _SAME_NUMBERS:
            return found
        if node.op_type == "DequantizeLinear":  # gives its scale's type
            return found[0], self._type_of(node.input[1])
        [to] = [attribute.i for attribute in node.attribute if attribute.name == "to"]
        return found[0], PRECISIONS.get(to, "other")

    def is_dequantized(self, name: str) -> bool:
        """Whether it is int8 numbers with a scale, which a runtime multiplies as they are."""
        node = self._producers.get(name)
        if node is None:
            return False
        if node.op_type in _SAME_NUMBERS:
            return self.is_dequantized(node.input[0])
        return node.op_type == "DequantizeLinear" and self._is_int8(node.input[0])

    def _is_int8(self, name: str) -> bool:
        if name in self._constants:
            return self._constants[name].data_type in _INT8_TYPES
        node = self._producers.get(name)
        return node is not None and (
            node.op_type in QUANTIZERS
            or (node.op_type in _SAME_NUMBERS and self._is_int8(node.input[0]))
        )

    def _type_of(self, constant: str) -> str:
        tensor = self._constants.get(constant)
        return PRECISIONS.get(tensor.data_type, "other") if tensor else "other"


def _quantization(graph: onnx.GraphProto) -> str | None:
    found = {QUANTIZERS[node.op_type] for node in graph.node if node.op_type in QUANTIZERS}
    if "dynamic" not in found:
        return next(iter(found), None)
    unsigned = any(
        tensor.data_type == onnx.TensorProto.UINT8 and len(tensor.dims) == 2
        for tensor in graph.initializer
    )
    return "dynamic-unsigned" if unsigned else "dynamic"
