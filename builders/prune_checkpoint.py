"""Prune a loaded checkpoint as a build was asked to, and tell what came of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import BartForConditionalGeneration

from builders.checkpoint import Checkpoint
from builders.checkpoint_files import DEV_FILE
from builders.prune_documents import LossBatch, dev_batches
from builders.prune_steps import TWO_FOUR, PruneStep
from builders.pruning import ModelPruner
from kobart_runtime.tokenizer import Tokenizer

SYNTHETIC = "random sources and the model's own greedy answers"


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What a manifest tells of a build's pruning."""

    requested: tuple[str, ...]
    layers_to_prune: tuple[str, ...] | None  # None: every Linear of encoder and decoder
    loss_measured_on: str | None  # None: no step needed a loss
    stats: dict[str, Any]

    @property
    def lines(self) -> tuple[str, ...]:
        """For people, while the build runs."""
        stats = self.stats
        return (
            f"{', '.join(self.requested)}: {stats['active_params']:,} of "
            f"{stats['total_params']:,} parameters are active, sparsity {stats['sparsity']:.1%} "
            f"({stats['target_sparsity']:.1%} of the chosen layers), saved size "
            f"{stats['bytes_on_disk_before'] / 2**20:.1f} -> "
            f"{stats['bytes_on_disk'] / 2**20:.1f} MiB",
            *([f"loss measured on {self.loss_measured_on}"] if self.loss_measured_on else []),
        )


def prune_checkpoint(
    checkpoint: Checkpoint,
    steps: Sequence[PruneStep],
    layers_to_prune: Sequence[str] | None,
    tokenizer: Tokenizer,
) -> Pruning:
    """Carry out the steps in their order, on the checkpoint's model, and make them permanent.

    Raises:
        ConfigError: A step does not fit the model.
        DocumentError: The checkpoint's documents cannot be read.
    """
    logger = logging.getLogger("kobart-build.pruning")
    logger.addHandler(logging.NullHandler())  # the build prints its warnings by itself
    pruner = ModelPruner(logger=logger)
    documents, measured_on = None, None
    if any(step.method == "layers" for step in steps):
        documents, measured_on = _documents(checkpoint, tokenizer)
    for step in steps:
        _carry_out(pruner, checkpoint.model, step, layers_to_prune, documents)
        pruner.make_permanent(checkpoint.model)
    return Pruning(
        requested=tuple(step.text for step in steps),
        layers_to_prune=None if layers_to_prune is None else tuple(layers_to_prune),
        loss_measured_on=measured_on,
        stats=pruner.get_pruning_stats(),
    )


def _carry_out(
    pruner: ModelPruner,
    model: BartForConditionalGeneration,
    step: PruneStep,
    layers_to_prune: Sequence[str] | None,
    documents: Sequence[LossBatch] | None,
) -> None:
    if step.method == "layers":
        pruner.layer_pruning(model, step.encoder_layers, step.decoder_layers, documents)
    elif step.method == TWO_FOUR:
        pruner.two_four_pruning(model, layers_to_prune)
    elif step.method == "structured":
        pruner.structured_pruning(model, step.amount, layers_to_prune=layers_to_prune)
    elif step.method == "global":
        pruner.global_pruning(model, step.amount, layers_to_prune)
    else:
        pruner.magnitude_pruning(model, step.amount, layers_to_prune)


def _documents(checkpoint: Checkpoint, tokenizer: Tokenizer) -> tuple[list[LossBatch] | None, str]:
    """The checkpoint's own documents, if it ships any and its weights mean anything."""
    path = checkpoint.folder / DEV_FILE if checkpoint.folder else None
    if path is None or not path.is_file():
        return None, SYNTHETIC
    batches = dev_batches(path, tokenizer, checkpoint.ids)
    return batches, f"{sum(len(batch.labels) for batch in batches)} documents of {DEV_FILE}"
