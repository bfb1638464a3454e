"""What one call of an engine must do at least: bytes to read, and operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from kobart_runtime.model_config import ModelShape
from kobart_runtime.model_runner import KvCache

_PRODUCTS = ("MatMul", "Gemm")  # part of the names of all operators that multiply by weights
_PASSED_ON = ("DequantizeLinear", "Transpose", "Cast", "Identity")


@dataclass(frozen=True)
class Weights:
    """The matrices that an engine multiplies by: each one once a call, by every row."""

    num_bytes: int
    num_values: int
    num_attentions: int  # softmaxes over keys

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Weights:
        """Read a graph; embeddings are looked up, not multiplied by, and do not count."""
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        makers = {output: node for node in model.graph.node for output in node.output}
        products = [n for n in model.graph.node if any(part in n.op_type for part in _PRODUCTS)]
        inputs = [name for node in products for name in node.input]
        used = {_origin(name, makers) for name in inputs} & tensors.keys()
        matrices = [tensors[name] for name in sorted(used) if len(tensors[name].dims) == 2]
        attentions = [node for node in model.graph.node if node.op_type in ("Softmax", "Attention")]
        return cls(
            num_bytes=sum(_num_bytes(tensor) for tensor in matrices),
            num_values=sum(int(np.prod(tensor.dims)) for tensor in matrices),
            num_attentions=len(attentions),
        )

    @classmethod
    def read(cls, path: Path) -> Weights:
        """Of an ONNX file."""
        return cls.of(onnx.load(path))


@dataclass(frozen=True, kw_only=True)
class Work:
    """Of one call."""

    num_bytes: int  # read at least once: weights, and keys and values
    weight_operations: int  # products in the build's precision: with weights, and with int8 K/V
    attention_operations: int  # products of activations, in float32

    @property
    def num_operations(self) -> int:
        """Multiplications and additions."""
        return self.weight_operations + self.attention_operations

    def busy_s(self, weights_gop_s: float, attention_gop_s: float) -> float:
        """How long the operations take at the speeds that the machine reaches at best."""
        weights = self.weight_operations / weights_gop_s
        return (weights + self.attention_operations / attention_gop_s) / 1e9


def encode_work(weights: Weights, shape: ModelShape, num_slots: int, source_len: int) -> Work:
    """Of encoding sources of one length, their cross-attention K/V included."""
    num_rows = num_slots * source_len
    return Work(
        num_bytes=weights.num_bytes,
        weight_operations=2 * num_rows * weights.num_values,
        attention_operations=_attention(shape, weights.num_attentions, num_rows, source_len),
    )


def step_work(
    weights: Weights,
    shape: ModelShape,
    cache: KvCache,
    num_slots: int,
    num_beams: int,
    source_len: int,
    num_entries: int,
) -> Work:
    """Of a decode step.

    Args:
        weights: The decoder's.
        shape: Its dimensions.
        cache: Tells how many bytes a cache entry and a source token take.
        num_slots: Requests.
        num_beams: Of each.
        source_len: Of each.
        num_entries: Self-attention K/V of each.
    """
    num_rows = num_slots * num_beams
    kv_bytes = source_len * cache.source_bytes + num_entries * cache.entry_bytes
    over_entries, over_source = (
        _attention(shape, shape.num_decoder_layers, num_rows, length)
        for length in (num_entries, source_len)
    )
    in_int8 = over_source if cache.source_bytes < cache.entry_bytes else 0
    return Work(
        num_bytes=weights.num_bytes + num_slots * kv_bytes,
        weight_operations=2 * num_rows * weights.num_values + in_int8,
        attention_operations=over_entries + over_source - in_int8,
    )


def _attention(shape: ModelShape, num_layers: int, num_rows: int, num_keys: int) -> int:
    """Queries by keys, and weights by values: 2 operations a number each."""
    return 4 * num_layers * num_rows * num_keys * shape.num_heads * shape.head_dim


def _origin(name: str, makers: Mapping[str, onnx.NodeProto]) -> str:
    """The tensor that another is made of, value by value."""
    while name in makers and makers[name].op_type in _PASSED_ON:
        name = makers[name].input[0]
    return name


def _num_bytes(tensor: onnx.TensorProto) -> int:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return int(np.prod(tensor.dims)) * dtype.itemsize
