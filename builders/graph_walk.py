"""From one node of an exported graph to the next."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from kobart_runtime.errors import BuildError


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


def _only(tensor: gs.Tensor, nodes: list[gs.Node], operators: tuple[str, ...]) -> gs.Node:
    found = [node.op for node in nodes]
    if len(found) != 1 or found[0] not in operators:
        raise BuildError(
            f"beside {tensor.name} lies {found or 'nothing'}, expected one of {operators}: "
            "this is no graph that builders/export.py wrote"
        )
    return nodes[0]
