"""Float32 graph + scales -> the portable int8 graph: explicit, symmetric Q/DQ.

Each product's activation is quantised by its calibrated scale, each weight by one scale a column
(output channel). ONNX Runtime and every TensorRT since 8.6 read such a graph; between the pairs
everything stays float32.

    activation -> QuantizeLinear -> DequantizeLinear ---.
                     weight int8 -> DequantizeLinear --- MatMul
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from builders.half_tables import halve_tables
from calibration.graph import weight_products
from calibration.ranges import LARGEST_INT8


def quantize_qdq(
    source: Path, target: Path, scales: Mapping[str, float], excluded: Collection[str] = ()
) -> None:
    """Write the Q/DQ graph.

    Args:
        source: The float32 graph.
        target: The file to write.
        scales: Activation tensor -> scale, for this graph.
        excluded: Names of products that stay float32.
    """
    model = onnx.load(source)
    names = {product.node for product in weight_products(model)} - set(excluded)
    graph = gs.import_onnx(model)
    quantized: dict[str, gs.Tensor] = {}
    for node in [node for node in graph.nodes if node.name in names]:
        activation, weight = node.inputs
        if activation.name not in quantized:
            quantized[activation.name] = _fake_quantized(graph, activation, scales[activation.name])
        node.inputs = [quantized[activation.name], _dequantized(graph, weight)]
    halve_tables(graph)
    onnx.save(gs.export_onnx(graph.cleanup().toposort()), target)


def quantize_columns(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 of a matrix, a scale for each column.

    Args:
        weight: float32[M, N].

    Returns:
        int8[M, N] in -127..127, and scales float32[N].
    """
    peaks = np.abs(weight).max(axis=0)
    scales = (np.where(peaks > 0, peaks, 1.0) / LARGEST_INT8).astype(np.float32)
    return np.clip(np.rint(weight / scales), -LARGEST_INT8, LARGEST_INT8).astype(np.int8), scales


def _fake_quantized(graph: gs.Graph, tensor: gs.Tensor, scale: float) -> gs.Tensor:
    parameters = [
        gs.Constant(f"{tensor.name}_scale", np.array(scale, np.float32)),
        gs.Constant(f"{tensor.name}_zero", np.array(0, np.int8)),
    ]
    as_int8 = gs.Variable(f"{tensor.name}_int8", dtype=np.int8)
    restored = gs.Variable(f"{tensor.name}_restored", dtype=np.float32)
    graph.nodes += [
        gs.Node("QuantizeLinear", f"{tensor.name}_quantize", {}, [tensor, *parameters], [as_int8]),
        gs.Node(
            "DequantizeLinear", f"{tensor.name}_dequantize", {}, [as_int8, *parameters], [restored]
        ),
    ]
    return restored


def _dequantized(graph: gs.Graph, weight: gs.Constant) -> gs.Tensor:
    values, scales = quantize_columns(weight.values)
    inputs = [
        gs.Constant(f"{weight.name}_int8", values),
        gs.Constant(f"{weight.name}_scale", scales),
        gs.Constant(f"{weight.name}_zero", np.zeros(scales.shape, np.int8)),
    ]
    restored = gs.Variable(f"{weight.name}_restored", dtype=np.float32)
    graph.nodes.append(
        gs.Node("DequantizeLinear", f"{weight.name}_dequantize", {"axis": 1}, inputs, [restored])
    )
    return restored
