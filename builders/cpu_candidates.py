"""The best candidates of a decode step, found for CPUs in groups of the vocabulary.

ONNX Runtime's TopK keeps a heap for each row and looks at every logit with it. A candidate among
the K best of a row lies in one of the K groups of neighbouring ids whose best logits are the
highest, so the heap need see the groups' best and then those groups alone. Equal logits keep their
order, the lower id first: groups are gone through in the order of their ids.

Log-probabilities are ONNX Runtime's LogSoftmax at the candidates, one operator that reads the
logits once for the four of the portable graph.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from builders.graph_editing import add_node
from kobart_runtime import bindings

_PREFIX = "candidates"
_WORTH_IT = 0.25  # of what a heap over the whole vocabulary looks at


def group_candidates(graph: gs.Graph) -> None:
    """Rewrite a decoder's way from logits to candidates.

    Args:
        graph: Written by `export.export_decoder`, in any precision.
    """
    outputs = {tensor.name: tensor for tensor in graph.outputs}
    logits, logprobs, candidate_ids = (
        outputs[name]
        for name in (bindings.LOGITS, bindings.CANDIDATE_LOGPROBS, bindings.CANDIDATE_IDS)
    )
    logprobs.inputs.clear()
    candidate_ids.inputs.clear()
    size = group_size(logits.shape[-1], candidate_ids.shape[-1])
    ids = _best_ids(graph, logits, candidate_ids.shape[-1], size)
    [all_logprobs] = add_node(graph, _PREFIX, "LogSoftmax", [logits], axis=-1)
    add_node(graph, _PREFIX, "GatherElements", [all_logprobs, ids], into=logprobs, axis=-1)
    add_node(graph, _PREFIX, "Cast", [ids], into=candidate_ids, to=onnx.TensorProto.INT32)


def group_size(vocab_size: int, num_candidates: int) -> int:
    """Ids of a group: the divisor of the vocabulary that leaves least to look at; 1: no groups.

    The best of the groups are looked at twice: when they are found, and by the heap.
    """
    work = {
        size: 2 * vocab_size // size + num_candidates * size
        for size in range(2, vocab_size // num_candidates + 1)
        if vocab_size % size == 0
    }
    best = min(work, key=lambda size: work[size], default=1)
    return best if work.get(best, vocab_size) <= _WORTH_IT * vocab_size else 1


def _best_ids(graph: gs.Graph, logits: gs.Tensor, count: int, size: int) -> gs.Tensor:
    """Ids of the best logits, int64[R, W, count], sorted from best to worst."""
    if size == 1:
        return _top(graph, logits, count)
    groups = _reshaped(graph, logits, logits.shape[-1] // size, size)
    [maxima] = add_node(graph, _PREFIX, "ReduceMax", [groups], axes=[-1], keepdims=0)
    found = _top(graph, maxima, count)
    [chosen, _] = add_node(
        graph, _PREFIX, "TopK", [found, np.array([count])], num_outputs=2, largest=0
    )
    [indices] = add_node(graph, _PREFIX, "Unsqueeze", [chosen, np.array([-1])])
    [members] = add_node(graph, _PREFIX, "GatherND", [groups, indices], batch_dims=2)
    places = _top(graph, _reshaped(graph, members, count * size), count)
    [group_places] = add_node(graph, _PREFIX, "Div", [places, np.array(size)])
    [group_ids] = add_node(graph, _PREFIX, "GatherElements", [chosen, group_places], axis=-1)
    [first_ids] = add_node(graph, _PREFIX, "Mul", [group_ids, np.array(size)])
    [offsets] = add_node(graph, _PREFIX, "Mod", [places, np.array(size)])
    [ids] = add_node(graph, _PREFIX, "Add", [first_ids, offsets])
    return ids


def _top(graph: gs.Graph, tensor: gs.Tensor, count: int) -> gs.Tensor:
    [_, places] = add_node(graph, _PREFIX, "TopK", [tensor, np.array([count])], num_outputs=2)
    return places


def _reshaped(graph: gs.Graph, tensor: gs.Tensor, *sizes: int) -> gs.Tensor:
    """[R, W, ...] -> [R, W, *sizes]."""
    [reshaped] = add_node(graph, _PREFIX, "Reshape", [tensor, np.array([0, 0, *sizes])])
    return reshaped
