"""Embedding tables as float16: they are looked up, not multiplied, and weigh half as much."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


def halve_tables(graph: gs.Graph) -> None:
    """Store what is looked up in float16; the rows that were looked up become float32 at once.

    A table with a value beyond float16 stays as it is.
    """
    for node in [node for node in graph.nodes if node.op == "Gather"]:
        table, ids = node.inputs[:2]
        if not _is_table(table) or isinstance(ids, gs.Constant):
            continue
        [rows] = node.outputs
        name = f"{table.name}_half"
        half = gs.Variable(f"{rows.name}_half", dtype=np.float16)
        node.inputs[0] = gs.Constant(name, table.values.astype(np.float16))
        node.outputs = [half]
        graph.nodes.append(
            gs.Node("Cast", f"{node.name}_to_float32", {"to": np.float32}, [half], [rows])
        )


def _is_table(tensor: gs.Tensor) -> bool:
    return (
        isinstance(tensor, gs.Constant)
        and tensor.values.dtype == np.float32
        and tensor.values.ndim == 2
        and float(np.abs(tensor.values).max()) <= LARGEST_FLOAT16
    )
