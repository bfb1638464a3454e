"""Structured pruning: which feed-forward neurons and attention heads go, and why some cannot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BartForConditionalGeneration
from transformers.models.bart.modeling_bart import BartAttention

from builders.prune_resize import BartLayer, keep_heads, keep_neurons
from builders.prune_selection import bare_name
from kobart_runtime.errors import ConfigError

# Which dimension of each Linear lies inside a feed-forward pair or an attention, 0 output and
# 1 input; the other one is the residual stream.
INNER_DIM = {"fc1": 0, "fc2": 1, "q_proj": 0, "k_proj": 0, "v_proj": 0, "out_proj": 1}
DIM_NAMES = ("output", "input")
ROUNDING = 1e-9  # 0.29 * 100 is a little below 29 in floating point


def residual_refusal(name: str, dim: int) -> str | None:
    """Why a Linear cannot lose neurons of a dimension; None if it can."""
    if INNER_DIM[bare_name(name)] == dim:
        return None
    others = ", ".join(other for other, inner in INNER_DIM.items() if inner == dim)
    return (
        f"{name} cannot lose {DIM_NAMES[dim]} neurons (dim {dim}): they are the residual stream, "
        f"whose width all layers share; with dim {dim} name {others}"
    )


def owners(
    model: BartForConditionalGeneration, names: Iterable[str]
) -> dict[str, BartLayer | BartAttention]:
    """What the named Linears shrink with: the layer of a feed-forward pair, or the attention."""
    parents = dict.fromkeys(name.rpartition(".")[0] for name in names)
    modules: Any = {parent: model.get_submodule(parent) for parent in parents}
    return dict(modules)


def ends(chosen: Mapping[str, BartLayer | BartAttention]) -> dict[str, nn.Linear]:
    """All Linears that shrink with the chosen layers and attentions."""
    return {
        f"{name}.{child_name}": child
        for name, owner in chosen.items()
        for child_name, child in owner.named_children()
        if isinstance(child, nn.Linear)
    }


def num_removed(amount: float, count: int) -> int:
    """That share of `count` neurons or heads, rounded down."""
    return math.floor(amount * count + ROUNDING)


def check_decoder_heads(
    model: BartForConditionalGeneration,
    chosen: Mapping[str, BartLayer | BartAttention],
    amount: float,
) -> None:
    """Refuse to leave the decoder's attentions with different numbers of heads.

    Raises:
        ConfigError: The caches of the engines have one number of heads for all of them.
    """
    left: dict[int, str] = {}
    for name, module in model.model.decoder.named_modules(prefix="model.decoder"):
        if isinstance(module, BartAttention):
            removed = num_removed(amount, module.num_heads) if name in chosen else 0
            left.setdefault(module.num_heads - removed, name)
    if len(left) > 1:
        counts = ", ".join(f"{name} {heads}" for heads, name in left.items())
        raise ConfigError(
            "all self- and cross-attentions of the decoder must keep the same number of heads, "
            f"for their caches have one shape; this would leave {counts}: name all of them, such "
            "as *.decoder.*.?_proj, or none"
        )


def shrink(owner: BartLayer | BartAttention, amount: float) -> tuple[str, int, int]:
    """Remove the least important share of neurons or heads.

    Returns:
        "heads" or "neurons", how many there were, and how many are left.
    """
    if isinstance(owner, BartAttention):
        kept = _most_important(_head_importance(owner), amount)
        before = owner.num_heads
        keep_heads(owner, kept)
        return "heads", before, len(kept)
    kept = _most_important(_neuron_importance(owner), amount)
    before = owner.fc1.out_features
    keep_neurons(owner, kept)
    return "neurons", before, len(kept)


def _most_important(importance: Tensor, amount: float) -> Tensor:
    """Indices to keep, int64, ascending, so that the layer's order stays."""
    count = len(importance) - num_removed(amount, len(importance))
    return importance.topk(count).indices.sort().values


@torch.no_grad()
def _neuron_importance(layer: BartLayer) -> Tensor:
    """Norm of what goes into a neuron times the norm of what comes out of it, float[F]."""
    return layer.fc1.weight.norm(dim=1) * layer.fc2.weight.norm(dim=0)


@torch.no_grad()
def _head_importance(attention: BartAttention) -> Tensor:
    """Frobenius norm of each head's map from what it attends to into the residual, float[H]."""
    shape = (attention.num_heads, attention.head_dim)
    value = attention.v_proj.weight.unflatten(0, shape)  # [H, D, M]
    output = attention.out_proj.weight.unflatten(1, shape).transpose(0, 1)  # [H, M, D]
    # |O V|^2 = trace(O^T O V V^T), which needs D x D matrices only.
    squared = (output.transpose(1, 2) @ output) * (value @ value.transpose(1, 2))
    return squared.sum(dim=(1, 2)).clamp(min=0).sqrt()
