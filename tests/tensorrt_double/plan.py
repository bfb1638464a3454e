"""What the double's builder writes and its runtime reads: an ONNX graph and its profiles."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

Shape = tuple[int, ...]
MAGIC = b"plan of the contract double\n"
KINDS: dict[int, tuple[str, Any]] = {
    TensorProto.FLOAT: ("FLOAT", np.float32),
    TensorProto.FLOAT16: ("HALF", np.float16),
    TensorProto.INT32: ("INT32", np.int32),
}

SCRATCH_BYTES = 1 << 16  # of each request, in the double's world


@dataclass
class Plan:
    """A serialized engine."""

    version: str
    version_compatible: bool
    graph: bytes
    profiles: list[dict[str, tuple[Shape, Shape, Shape]]]
    flags: list[str]
    settings: dict[str, Any]  # of the builder configuration, for tests to look at

    def serialize(self) -> bytes:
        stream = io.BytesIO()
        pickle.dump(self, stream)
        return MAGIC + stream.getvalue()

    def scratch_bytes(self, profile: int) -> int:
        """Scratch memory that a run under a profile takes; more for larger batches."""
        largest = next(iter(self.profiles[profile].values()))[2]
        return SCRATCH_BYTES * largest[0]

    @classmethod
    def read(cls, content: bytes) -> Plan | None:
        return pickle.loads(content[len(MAGIC) :]) if content.startswith(MAGIC) else None


@dataclass(frozen=True)
class TensorFacts:
    """One input or output of a graph."""

    name: str
    kind: str  # a member of trt.DataType
    dtype: Any
    shape: Shape  # -1 where dynamic


def graph_tensors(values: Any) -> list[TensorFacts]:
    return [_facts(value) for value in values]


def _facts(value: onnx.ValueInfoProto) -> TensorFacts:
    tensor = value.type.tensor_type
    kind, dtype = KINDS[tensor.elem_type]
    sizes = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return TensorFacts(value.name, kind, dtype, sizes)


def scratch_of(graph: onnx.ModelProto) -> int:
    """Workspace that the double's kernels need: as much as the largest weight."""
    sizes = [len(tensor.raw_data) for tensor in graph.graph.initializer]
    return max(sizes, default=0)


def load_graph(path: str) -> onnx.ModelProto:
    return onnx.load(Path(path))
