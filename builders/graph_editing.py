"""Rewriting an exported graph: from one node to the next, new nodes, and the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from kobart_runtime.errors import BuildError

MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators


@contextmanager
def rewriting(path: Path) -> Iterator[gs.Graph]:
    """A file's graph, which is written back when the block ends without an error."""
    graph = gs.import_onnx(onnx.load(path))
    yield graph
    save(graph, path)


def reader(tensor: gs.Tensor, *operators: str) -> gs.Node:
    """The one node that reads a tensor.

    Raises:
        BuildError: There is none or another, or it is none of these operators.
    """
    return _only(tensor, tensor.outputs, operators)


def writer(tensor: gs.Tensor, *operators: str) -> gs.Node:
    """The node that a tensor comes from.

    Raises:
        BuildError: There is none, or it is none of these operators.
    """
    return _only(tensor, tensor.inputs, operators)


def add_node(
    graph: gs.Graph,
    prefix: str,
    operator: str,
    inputs: Sequence[gs.Tensor | np.ndarray],
    *,
    into: gs.Tensor | None = None,
    num_outputs: int = 1,
    domain: str | None = None,
    **attrs: object,
) -> list[gs.Tensor]:
    """Add a node.

    Args:
        graph: Where to.
        prefix: Of its name and those of its outputs.
        operator: What it computes.
        inputs: Arrays among them become constants.
        into: The tensor that it writes (default: new ones).
        num_outputs: New tensors.
        domain: Whose operator it is (default: ONNX's).
        attrs: Of the operator.

    Returns:
        What it writes.
    """
    name = f"{prefix}_{operator}"
    outputs = [into] if into is not None else [f"{name}_{index}" for index in range(num_outputs)]
    found: list[gs.Tensor] = graph.layer(
        op=operator,
        name=f"{name}_{len(graph.nodes)}",
        domain=domain,
        inputs=list(inputs),
        outputs=outputs,
        attrs=attrs,
    )
    return found


def save(graph: gs.Graph, path: Path) -> None:
    """Check a graph and write it; a file that is there may be a link, whose other name stays."""
    model = gs.export_onnx(graph.cleanup().toposort())
    del model.graph.value_info[:]  # shapes from before
    known = {entry.domain for entry in model.opset_import}
    if MICROSOFT not in known and any(node.domain == MICROSOFT for node in model.graph.node):
        model.opset_import.add(domain=MICROSOFT, version=1)
    onnx.checker.check_model(model, full_check=True)
    path.unlink(missing_ok=True)
    onnx.save(model, path)


def _only(tensor: gs.Tensor, nodes: list[gs.Node], operators: tuple[str, ...]) -> gs.Node:
    found = [node.op for node in nodes]
    if len(found) != 1 or found[0] not in operators:
        raise BuildError(
            f"beside {tensor.name} lies {found or 'nothing'}, expected one of {operators}: "
            "this is no graph that builders/export.py wrote"
        )
    return nodes[0]
