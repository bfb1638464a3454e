"""Float32 graph -> float16 graph, with float32 where float16 is not enough.

Float32 stay: layer norms and softmaxes (sums of many terms), the head behind its product (a sum
over the vocabulary, and the logits a caller reads), and whatever exceeds float16 on real
documents. K/V at the border are float16. Int8 products of a Q/DQ graph stay as they are, with
casts around them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from calibration.activations import peaks
from calibration.feeds import Feed
from kobart_runtime import bindings
from kobart_runtime.errors import BuildError

FLOAT32_OUTPUTS = [bindings.LOGITS, bindings.CANDIDATE_LOGPROBS]
FLOAT32_OPERATORS = ("LayerNormalization", "Softmax", "Exp", "Log", "ReduceSum", "TopK")
# In opset 17 these know no float16.
INT8_OPERATORS = ("QuantizeLinear", "DequantizeLinear")
# Largest magnitude left to float16, whose own limit is 65504: other documents may go higher.
SAFE_PEAK = 65504 / 2
OVERFLOW_DOCUMENTS = 32  # watched for values too large for float16: every tensor of every node


def convert_to_half(source: Path, target: Path, feeds: Iterable[Feed]) -> list[str]:
    """Write the float16 graph.

    Args:
        source: The float32 graph; its products may be int8, between Q/DQ pairs.
        target: The file to write.
        feeds: Real inputs of the graph, to see which values would overflow.

    Returns:
        The nodes that stay float32 because their values are too large for float16.

    Raises:
        BuildError: A value at the border (K/V) is too large.
        EngineError: The float32 graph failed.
    """
    model = onnx.load(source)
    overflowing = _overflowing(model, peaks(source, _float_tensors(model), feeds))
    half = convert_float_to_float16(
        model,
        keep_io_types=FLOAT32_OUTPUTS,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *FLOAT32_OPERATORS, *INT8_OPERATORS],
        node_block_list=[*_behind_head(model), *_int8_products(model), *overflowing],
    )
    graph = gs.import_onnx(half)
    _join_casts(graph)
    onnx.save(gs.export_onnx(graph.cleanup().toposort()), target)
    return overflowing


def _float_tensors(model: onnx.ModelProto) -> list[str]:
    """The float32 results of all nodes."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    produced = [name for node in model.graph.node for name in node.output]
    constants = {
        name for node in model.graph.node if node.op_type == "Constant" for name in node.output
    }
    return [name for name in produced if name in floats - constants]


def _overflowing(model: onnx.ModelProto, found: dict[str, float]) -> list[str]:
    """Nodes that make or take a value beyond SAFE_PEAK."""
    large = {name for name, peak in found.items() if not peak <= SAFE_PEAK}
    at_border = sorted(large & {output.name for output in model.graph.output} - {*FLOAT32_OUTPUTS})
    if at_border:
        raise BuildError(
            f"{at_border[0]} reaches {found[at_border[0]]:.3g}, more than half of what float16 "
            "holds (65504): build fp32"
        )
    return [node.name for node in model.graph.node if large & {*node.input, *node.output}]


def _behind_head(model: onnx.ModelProto) -> list[str]:
    """Nodes between the head's product and the logits, that product excluded."""
    producers = {name: node for node in model.graph.node for name in node.output}
    found: list[str] = []
    node = producers.get(bindings.LOGITS)
    while node is not None and node.op_type != "MatMul":
        found.append(node.name)
        node = next((producers[name] for name in node.input if name in producers), None)
    return found + _between(model, bindings.LOGITS)


def _int8_products(model: onnx.ModelProto) -> list[str]:
    """Products of what a Q/DQ pair gives."""
    restored = {node.output[0] for node in model.graph.node if node.op_type == INT8_OPERATORS[1]}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul" and restored & {*node.input}
    ]


def _between(model: onnx.ModelProto, tensor: str) -> list[str]:
    """All nodes that depend on a tensor."""
    reached = {tensor}
    found = []
    for node in model.graph.node:  # in topological order
        if reached & {*node.input}:
            reached |= {*node.output}
            found.append(node.name)
    return found


def _join_casts(graph: gs.Graph) -> None:
    """Between two float32 nodes, and before a float32 output, no value passes through float16."""
    for node in [node for node in graph.nodes if _casts_to(node, np.float32)]:
        original = node.inputs[0]
        while original.inputs and original.inputs[0].op == "Cast":
            original = original.inputs[0].inputs[0]
        if original is not node.inputs[0] and original.dtype == np.float32:
            _replace(graph, node, original)


def _casts_to(node: gs.Node, dtype: type) -> bool:
    return node.op == "Cast" and node.attrs["to"] in (
        onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)),
        dtype,
    )


def _replace(graph: gs.Graph, cast: gs.Node, original: gs.Tensor) -> None:
    """Give the consumers of a cast, or the graph's caller, the tensor that it came from."""
    [result] = cast.outputs
    if result not in graph.outputs:
        for consumer in list(result.outputs):
            consumer.inputs = [
                original if tensor is result else tensor for tensor in consumer.inputs
            ]
        return
    cast.outputs.clear()
    [producer] = original.inputs
    producer.outputs = [result if tensor is original else tensor for tensor in producer.outputs]
    for consumer in list(original.outputs):
        consumer.inputs = [result if tensor is original else tensor for tensor in consumer.inputs]
