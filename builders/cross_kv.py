"""Cross-attention keys and values as int8, for CPUs: graphs beside those of the engines' contract.

A decode step reads the keys and values of all its sources, and with eight sources of 512 tokens
they are more than the weights. One byte for each number is a quarter of that, and the products
become integer products.

Each channel has a scale of its own, from the largest magnitude on the build's documents. Nothing is
multiplied out: the keys' scales enter the queries and the values' scales the results,

    scores  = (query * key_scale) . key_int8
    context = (weights / peak) . value_int8 * value_scale * peak

with the queries quantized as ONNX Runtime's dynamic int8 does, and the weights of each row by their
peak, so that a row that attends to many tokens loses no more than one that attends to few.

Shapes: R requests, W beams, S source length, H heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from builders.export import OPSET
from builders.graph_editing import MICROSOFT, add_node, reader, save, writer
from calibration.documents import Document, pad
from kobart_runtime import bindings
from kobart_runtime.model_config import ModelShape
from kobart_runtime.onnxruntime_runner import Encoder

LARGEST_INT8 = 127
# Unsigned bytes: signed ones are inexact on CPUs without VNNI (quantize_dynamic.py).
_ZERO = np.array(128, np.uint8)
_KEY_PERMUTATION = [0, 2, 3, 1]  # [R, S, H, D] -> [R, H, D, S]

Scales = Mapping[str, np.ndarray]  # name of a key or value among past_cross -> float32[H, D]


def channel_scales(
    encoder: Encoder, documents: Iterable[Document], shape: ModelShape
) -> dict[str, np.ndarray]:
    """What one step of int8 means, for each channel of the keys and values.

    Args:
        encoder: With float outputs.
        documents: What is encoded, each alone.
        shape: The engines' dimensions.

    Returns:
        Name among `bindings.past_cross` -> float32[H, D].

    Raises:
        EngineError: The encoder failed.
    """
    names = bindings.of_layers(bindings.past_cross, shape.num_decoder_layers)
    peaks = {name: np.zeros((shape.num_heads, shape.head_dim), np.float32) for name in names}
    for document in documents:
        for name, states in zip(names, encoder.encode(*pad([document.input_ids])), strict=True):
            np.maximum(peaks[name], np.abs(states).max(axis=(0, 2)), out=peaks[name])
    # A channel that is always 0 may have any scale.
    return {
        name: np.where(peak > 0, peak, np.float32(1)) / LARGEST_INT8 for name, peak in peaks.items()
    }


def quantize_encoder(source: Path, target: Path, scales: Scales) -> None:
    """Write an encoder whose keys are uint8[R, H, D, S] and values uint8[R, H, S, D].

    Args:
        source: An encoder in fp32 or int8, of float outputs.
        target: The file to write.
        scales: See `channel_scales`.

    Raises:
        BuildError: The graph does not have the form that `export` gives it.
    """
    graph = gs.import_onnx(onnx.load(source))
    outputs = {tensor.name: tensor for tensor in graph.outputs}
    for layer in range(len(scales) // 2):
        key, value = (outputs[name] for name in bindings.present_cross(layer))
        for tensor, name in zip((key, value), bindings.past_cross(layer), strict=True):
            _quantize_output(graph, tensor, scales[name])
        writer(key, "Transpose").attrs["perm"] = _KEY_PERMUTATION
        requests, heads, length, head_dim = key.shape
        key.shape = [requests, heads, head_dim, length]
    save(graph, target)


def quantize_decoder(source: Path, target: Path, scales: Scales) -> None:
    """Write a decoder that takes what `quantize_encoder`'s encoder gives.

    Args:
        source: A decoder in fp32 or int8 as `export` lays it out, of float cross-attention K/V.
        target: The file to write.
        scales: See `channel_scales`.

    Raises:
        BuildError: The graph does not have the form that `export` gives it.
    """
    graph = gs.import_onnx(onnx.load(source))
    inputs = {tensor.name: tensor for tensor in graph.inputs}
    for layer in range(len(scales) // 2):
        key, value = (inputs[name] for name in bindings.past_cross(layer))
        _multiply_keys(graph, key, scales[key.name])
        _multiply_values(graph, value, scales[value.name])
    save(graph, target)


def write_to_float(target: Path, scales: Scales) -> None:
    """Write a graph that turns what `quantize_encoder`'s encoder gives into the contract's floats.

    Its inputs are named as the decoder's, its outputs as a float encoder's. Behind that encoder it
    makes the engine model `kobart_encoder`, which so runs the graph that the front model runs.

    Args:
        target: The file to write.
        scales: See `channel_scales`.
    """
    graph = gs.Graph(opset=OPSET)
    for layer in range(len(scales) // 2):
        names = zip(bindings.past_cross(layer), bindings.present_cross(layer), strict=True)
        for place, (name, floats) in enumerate(names):
            num_heads, head_dim = scales[name].shape
            is_key = place == 0
            axes = (head_dim, "source") if is_key else ("source", head_dim)
            states: gs.Tensor = gs.Variable(name, np.uint8, ["requests", num_heads, *axes])
            graph.inputs.append(states)
            if is_key:
                [states] = add_node(graph, name, "Transpose", [states], perm=[0, 1, 3, 2])
            [steps] = add_node(
                graph, name, "DequantizeLinear", [states, np.array(1, np.float32), _ZERO]
            )
            result = gs.Variable(floats, np.float32, ["requests", num_heads, "source", head_dim])
            add_node(graph, name, "Mul", [steps, scales[name][None, :, None, :]], into=result)
            graph.outputs.append(result)
    save(graph, target)


def _quantize_output(graph: gs.Graph, output: gs.Tensor, scale: np.ndarray) -> None:
    """Quantize before the heads are split, where a channel's scale is one of the last axis.

    The scales are multiplied with: ONNX Runtime's QuantizeLinear is slow along the last axis.
    """
    reshape = writer(writer(output, "Transpose").inputs[0], "Reshape")
    [scaled] = add_node(graph, output.name, "Mul", [reshape.inputs[0], 1 / scale.reshape(-1)])
    quantizer = [scaled, np.array(1, np.float32), _ZERO]
    [reshape.inputs[0]] = add_node(graph, output.name, "QuantizeLinear", quantizer)
    output.dtype = _ZERO.dtype


def _multiply_keys(graph: gs.Graph, key: gs.Variable, scale: np.ndarray) -> None:
    turn = reader(key, "Transpose")
    product = reader(turn.outputs[0], "MatMul")
    query, [scores] = product.inputs[0], product.outputs
    for node in (turn, product):
        node.inputs.clear()
        node.outputs.clear()
    requests, heads, length, head_dim = key.shape
    key.dtype, key.shape = _ZERO.dtype, [requests, heads, head_dim, length]
    [scaled] = add_node(graph, key.name, "Mul", [query, scale[None, :, None, :]])
    rows, row_scale, row_zero = add_node(
        graph, key.name, "DynamicQuantizeLinear", [scaled], num_outputs=3
    )
    operands = [rows, key, row_scale, np.array(1, np.float32), row_zero, _ZERO]
    add_node(graph, key.name, "MatMulIntegerToFloat", operands, into=scores, domain=MICROSOFT)


def _multiply_values(graph: gs.Graph, value: gs.Variable, scale: np.ndarray) -> None:
    product = reader(value, "MatMul")
    weights, [context] = product.inputs[0], product.outputs
    product.inputs.clear()
    product.outputs.clear()
    value.dtype = _ZERO.dtype
    [peak] = add_node(graph, value.name, "ReduceMax", [weights], axes=[-1], keepdims=1)
    [of_peak] = add_node(graph, value.name, "Div", [weights, peak])
    step, zero = np.array(1 / np.iinfo(np.uint8).max, np.float32), np.array(0, np.uint8)
    [rows] = add_node(graph, value.name, "QuantizeLinear", [of_peak, step, zero])
    operands = [rows, value, step, np.array(1, np.float32), zero, _ZERO]
    [summed] = add_node(graph, value.name, "MatMulIntegerToFloat", operands, domain=MICROSOFT)
    [scaled_peak] = add_node(graph, value.name, "Mul", [peak, scale[None, :, None, :]])
    add_node(graph, value.name, "Mul", [summed, scaled_peak], into=context)
