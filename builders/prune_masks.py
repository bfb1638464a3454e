"""Unstructured pruning by masks, through `torch.nn.utils.prune`: the 2:4 pattern, and removal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from kobart_runtime.errors import ConfigError

WEIGHT = "weight"  # biases are not pruned: they are few, and cheap to keep
GROUP, KEPT = 4, 2


class TwoFourPruning(prune.BasePruningMethod):
    """Keep the two largest of every four neighbouring inputs of an output neuron.

    The pattern of NVIDIA's sparse tensor cores (arXiv:2104.08378, section 3).
    """

    PRUNING_TYPE = "global"  # the mask is for the whole tensor, not for what masks have left

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Mask float[N, K] of weights float[N, K]; what was masked before stays so."""
        magnitudes = (t * default_mask).abs().unflatten(1, (-1, GROUP))
        kept = magnitudes.topk(KEPT, dim=-1).indices
        mask = torch.zeros_like(magnitudes).scatter_(-1, kept, 1.0)
        return mask.flatten(1) * default_mask


def check_two_four(linears: Mapping[str, nn.Linear]) -> None:
    """Refuse widths that groups of four do not fill.

    Raises:
        ConfigError: Names the layer and its width.
    """
    for name, linear in linears.items():
        if linear.in_features % GROUP:
            raise ConfigError(
                f"{name} has {linear.in_features} inputs, 2:4 sparsity needs a multiple of "
                f"{GROUP}: leave it out by naming the layers to prune"
            )


def check_unmasked(linears: Mapping[str, nn.Linear]) -> None:
    """Refuse to resize what a mask lies on.

    Raises:
        ConfigError: Names the first such layer.
    """
    for name, linear in linears.items():
        if _has_mask(linear):
            raise ConfigError(
                f"{name} has a pruning mask, which cannot shrink with it: call make_permanent first"
            )


def _has_mask(module: nn.Module) -> bool:
    return hasattr(module, f"{WEIGHT}_mask")


def remove_masks(modules: Iterable[nn.Module]) -> None:
    """Write masks into the weights and take them away."""
    for module in modules:
        if _has_mask(module):
            prune.remove(module, WEIGHT)
