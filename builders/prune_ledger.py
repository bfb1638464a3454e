"""What pruning did to a model, counted on the model itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import safetensors.torch
import torch
from torch import nn
from transformers import BartForConditionalGeneration

from builders.prune_selection import prunable_linears


class PruningLedger:
    """One model before pruning, which of its layers were chosen since, and what was done."""

    def __init__(self, model: BartForConditionalGeneration) -> None:
        self.model = model
        self.steps: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self._total_params = num_params(model)
        self._bytes_before = saved_bytes(model)
        self._chosen: dict[nn.Linear, int] = {}  # weights that each one had at first

    def choose(self, linears: Iterable[nn.Linear]) -> None:
        """Note layers that are about to be pruned."""
        for linear in linears:
            self._chosen.setdefault(linear, linear.weight.numel())

    def layer_sparsity(self, linear: nn.Linear) -> float:
        """Share of a chosen layer's first weights that are zero or gone, 0..1."""
        return 1 - _num_active(linear) / self._chosen[linear]

    def stats(self) -> dict[str, Any]:
        """See `ModelPruner.get_pruning_stats`."""
        left = {
            name: linear
            for name, linear in prunable_linears(self.model).items()
            if linear in self._chosen
        }
        weights = sum(self._chosen.values())
        active_weights = sum(_num_active(linear) for linear in left.values())
        zeros = sum(linear.weight.numel() for linear in left.values()) - active_weights
        active = num_params(self.model) - zeros
        return {
            "total_params": self._total_params,
            "pruned_params": self._total_params - active,
            "active_params": active,
            "sparsity": 1 - active / self._total_params,
            "target_sparsity": 1 - active_weights / weights if weights else 0.0,
            "compression_ratio": self._total_params / active,
            "bytes_on_disk_before": self._bytes_before,
            "bytes_on_disk": saved_bytes(self.model),
            "layers": {name: self.layer_sparsity(linear) for name, linear in left.items()},
            "steps": list(self.steps),
            "warnings": list(self.warnings),
        }


def num_params(model: nn.Module) -> int:
    """Parameters of a model, zeros included; tied ones count once, masks are none."""
    return sum(parameter.numel() for parameter in model.parameters())


def graph_bytes(model: BartForConditionalGeneration) -> int:
    """Bytes of the weights in the two float32 graphs, each of which has its own embeddings."""
    encoder = nn.ModuleList([model.model.encoder])
    decoder = nn.ModuleList([model.model.decoder, model.lm_head])
    return 4 * (num_params(encoder) + num_params(decoder))


def saved_bytes(model: nn.Module) -> int:
    """Bytes of `model.safetensors` as `save_pretrained` writes it, masks made permanent."""
    buffers = {name: buffer for name, buffer in model.named_buffers() if "_mask" not in name}
    tensors = {name.removesuffix("_orig"): p for name, p in model.named_parameters()} | buffers
    stored = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    return len(safetensors.torch.save(stored, metadata={"format": "pt"}))


@torch.no_grad()
def _num_active(linear: nn.Linear) -> int:
    return int(torch.count_nonzero(linear.weight))
