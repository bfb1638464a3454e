"""Make a layer smaller in place: feed-forward neurons and attention heads that are kept.

Both ends of a pair shrink together, so that the residual stream keeps its width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.bart.modeling_bart import (
    BartAttention,
    BartDecoderLayer,
    BartEncoderLayer,
)

BartLayer = BartEncoderLayer | BartDecoderLayer


def keep_neurons(layer: BartLayer, kept: Tensor) -> None:
    """Keep some feed-forward neurons: rows of fc1 with columns of fc2.

    Args:
        layer: Changed in place.
        kept: int64[N], the neurons to keep.
    """
    _keep_outputs(layer.fc1, kept)
    _keep_inputs(layer.fc2, kept)


def keep_heads(attention: BartAttention, kept: Tensor) -> None:
    """Keep some heads: their rows of the q, k and v projections, their columns of the output.

    Args:
        attention: Changed in place; its head_dim and the width of its input and output stay.
        kept: int64[N], the heads to keep.
    """
    within = torch.arange(attention.head_dim, device=kept.device)
    channels = (kept[:, None] * attention.head_dim + within).flatten()
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        _keep_outputs(projection, channels)
    _keep_inputs(attention.out_proj, channels)
    attention.num_heads = len(kept)


def _keep_outputs(linear: nn.Linear, kept: Tensor) -> None:
    linear.weight = _reduced(linear.weight, 0, kept)
    linear.bias = _reduced(linear.bias, 0, kept)
    linear.out_features = len(kept)


def _keep_inputs(linear: nn.Linear, kept: Tensor) -> None:
    linear.weight = _reduced(linear.weight, 1, kept)
    linear.in_features = len(kept)


def _reduced(parameter: Tensor, dim: int, kept: Tensor) -> nn.Parameter:
    reduced = parameter.detach().index_select(dim, kept.to(parameter.device))
    return nn.Parameter(reduced, requires_grad=parameter.requires_grad)
