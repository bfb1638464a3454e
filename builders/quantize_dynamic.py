"""Float32 graph -> int8 whose activation scales are measured in every step, for CPUs.

It needs no calibration, follows each call's own range, and ONNX Runtime fuses it into few nodes.
TensorRT does not read it.

CPUs without VNNI multiply unsigned activations and signed weights in pairs whose 16-bit sums
saturate (vpmaddubsw); ONNX Runtime has exact kernels for unsigned weights.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
from onnxruntime.quantization import QuantType, quantize_dynamic

from builders.half_tables import halve_tables


def write_dynamic(
    source: Path, target: Path, excluded: Collection[str] = (), *, unsigned: bool = False
) -> None:
    """Write the graph with dynamic int8 products, weights with a scale a column.

    Args:
        source: The float32 graph.
        target: The file to write.
        excluded: Names of products that stay float32.
        unsigned: Weights have a zero point and no sign; else they are symmetric.
    """
    graph = gs.import_onnx(onnx.load(source))
    halve_tables(graph)
    model = gs.export_onnx(graph.cleanup().toposort())
    logging.disable(logging.WARNING)  # it advises a preparation that changes the tensors' names
    try:
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
            nodes_to_exclude=list(excluded),
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        logging.disable(logging.NOTSET)
