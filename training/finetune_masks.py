"""Zeros that stay zero: masks on the pruned weights while a model is trained."""

from __future__ import annotations

from torch.nn.utils import prune
from transformers import BartForConditionalGeneration

from builders.prune_masks import WEIGHT, remove_masks
from builders.prune_selection import prunable_linears


def mask_zeros(model: BartForConditionalGeneration) -> int:
    """Put a mask on every weight of encoder and decoder layers that is exactly zero.

    What was pruned in an earlier run is so kept as well, whoever pruned it. A masked layer
    computes `weight = weight_orig * weight_mask` before each use: no gradient, momentum or
    decay reaches a masked weight.

    Returns:
        How many weights are masked.
    """
    num_masked = 0
    for linear in prunable_linears(model).values():
        mask = linear.weight.detach() != 0
        if not mask.all():
            prune.custom_from_mask(linear, WEIGHT, mask)
            num_masked += int((~mask).sum())
    return num_masked


def unmask(model: BartForConditionalGeneration) -> None:
    """Write the masks into the weights and take them away."""
    remove_masks(prunable_linears(model).values())
