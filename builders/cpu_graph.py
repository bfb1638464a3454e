"""A decode step laid out for CPUs: each beam's products with the source are its own.

The portable graph folds the beams of a request into the query axis, `[R, H, W, D] x [R, H, S, D]`.
A CPU's matrix product first copies the larger side into an order of its own, which for a handful
of beams costs more than the product itself. A product of one row reads it where it lies, and the
next beam finds it in the processor's cache: `[R, H, W, 1, D] x [R, H, 1, S, D]`.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from builders.graph_editing import add_node, reader, writer
from kobart_runtime import bindings
from kobart_runtime.errors import BuildError

_ROWS = 2  # axis of the beams in scores [R, H, W, S]; it becomes [W, 1]
_WIDE_PERMUTATIONS = {  # tokens and heads change places, or the last two axes
    (0, 2, 1, 3): [0, 2, 1, 3, 4],
    (0, 1, 3, 2): [0, 1, 2, 4, 3],
}
_ON_THE_WAY = ("Cast", "Mul", "Transpose", "Reshape")


def keep_beams_apart(graph: gs.Graph, num_decoder_layers: int) -> None:
    """Rewrite a decoder's cross-attention; its inputs and outputs stay as they are.

    Args:
        graph: Written by `export.export_decoder`, in any precision.
        num_decoder_layers: Its layers.

    Raises:
        BuildError: The graph does not have the form that `export` gives it.
    """
    inputs = {tensor.name: tensor for tensor in graph.inputs}
    biases: set[str] = set()
    for layer in range(num_decoder_layers):
        key, value = (inputs[name] for name in bindings.past_cross(layer))
        scores = _product(_unsqueezed(graph, key, key.outputs, _ROWS))
        attended = _product(_unsqueezed(graph, value, value.outputs, _ROWS))
        _widen_query(scores)
        _widen_bias(graph, scores, biases)
        _widen(reader(attended.outputs[0], "Transpose"))


def _unsqueezed(
    graph: gs.Graph, tensor: gs.Tensor, readers: list[gs.Node], axis: int
) -> gs.Variable:
    """`tensor` with a further axis of length 1, which `readers` read in its place."""
    readers = list(readers)  # before the new one is among them
    [wide] = add_node(graph, f"{tensor.name}_wide", "Unsqueeze", [tensor, np.array([axis])])
    for node in readers:
        node.inputs = [wide if given is tensor else given for given in node.inputs]
    return wide


def _product(wide: gs.Tensor) -> gs.Node:
    """The product that K/V enters, behind a transposition if it is a key."""
    node = reader(wide, *_ON_THE_WAY, "MatMul")
    while node.op != "MatMul":
        if node.op == "Transpose":
            _widen(node)
        node = reader(node.outputs[0], *_ON_THE_WAY, "MatMul")
    return node


def _widen_query(scores: gs.Node) -> None:
    """[R, H, W, D] to [R, H, W, 1, D], where the projection is split into heads."""
    tensor = scores.inputs[0]
    while True:
        node = writer(tensor, *_ON_THE_WAY)
        if node.op == "Transpose":
            _widen(node)
        if node.op == "Reshape":
            shape = writer(node.inputs[1], "Constant").attrs["value"].values  # R, T, H, D
            node.inputs[1] = gs.Constant(f"{node.name}_wide", np.insert(shape, 3, 1))
            return
        tensor = node.inputs[0]


def _widen_bias(graph: gs.Graph, scores: gs.Node, widened: set[str]) -> None:
    """[R, 1, 1, S] to [R, 1, 1, 1, S], where no layer before has done it."""
    add = reader(scores.outputs[0], "Add")
    [bias] = [tensor for tensor in add.inputs if tensor is not scores.outputs[0]]
    if bias.name not in widened:
        widened.add(_unsqueezed(graph, bias, bias.outputs, 1).name)


def _widen(transpose: gs.Node) -> None:
    """The same transposition of tensors with one axis more, of length 1."""
    permutation = tuple(transpose.attrs["perm"])
    if permutation not in _WIDE_PERMUTATIONS:
        raise BuildError(f"{transpose.name} transposes by {permutation}, which export does not do")
    transpose.attrs["perm"] = _WIDE_PERMUTATIONS[permutation]
