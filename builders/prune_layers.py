"""Whole-layer pruning: keep the layers whose loss, if they were left out, would hurt most.

Backward elimination (arXiv:2004.03844 finds that which layers go matters more than how many): the
layer without which the model's loss is lowest goes, one at a time, the rest being measured anew
each time; first in the encoder, then in the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import BartForConditionalGeneration
from transformers.models.bart.modeling_bart import BartAttention, BartDecoder, BartEncoder

from builders.prune_documents import IGNORED, LossBatch, synthetic_batches
from kobart_runtime.errors import ConfigError

StackName = Literal["encoder", "decoder"]


@dataclass(frozen=True, kw_only=True)
class Elimination:
    """What happened to one stack."""

    stack: StackName
    removed: tuple[int, ...]  # indices before pruning, in the order of their going
    losses: tuple[float, ...]  # nats per token: of the whole stack, then after each removal


def counts_to_keep(
    model: BartForConditionalGeneration, encoder_layers: int | None, decoder_layers: int | None
) -> dict[StackName, int]:
    """How many layers stay of each stack that is to be pruned.

    Raises:
        ConfigError: No stack is named, or a number is not from 1 to the layers that there are.
    """
    given: dict[StackName, int | None] = {"encoder": encoder_layers, "decoder": decoder_layers}
    counts = {name: count for name, count in given.items() if count is not None}
    if not counts:
        raise ConfigError("layer pruning needs a number of layers to keep: of encoder or decoder")
    for name, count in counts.items():
        available = len(stack(model, name).layers)
        if isinstance(count, bool) or not 1 <= count <= available:
            raise ConfigError(
                f"the {name} has {available} layers: 1..{available} can stay, got {count}"
            )
    return counts


def stack(model: BartForConditionalGeneration, name: StackName) -> BartEncoder | BartDecoder:
    """The encoder or the decoder."""
    return model.model.encoder if name == "encoder" else model.model.decoder


def stack_of(name: str) -> StackName:
    """The stack of a Linear, by the Linear's name."""
    return "encoder" if name.startswith("model.encoder.") else "decoder"


@torch.no_grad()
def keep_best_layers(
    model: BartForConditionalGeneration,
    counts: Mapping[StackName, int],
    documents: Sequence[LossBatch] | None,
) -> list[Elimination]:
    """Remove layers of each stack until its count is left.

    Args:
        model: Changed in place.
        counts: How many layers stay.
        documents: What the loss is measured on; None: `synthetic_batches`.
    """
    was_training = model.training
    model.eval()  # dropout would blur the losses
    batches = synthetic_batches(model) if documents is None else documents
    results = [_eliminate(model, name, count, batches) for name, count in counts.items()]
    model.train(was_training)
    return results


def _eliminate(
    model: BartForConditionalGeneration,
    name: StackName,
    count: int,
    batches: Sequence[LossBatch],
) -> Elimination:
    module = stack(model, name)
    original = list(module.layers)
    kept = list(range(len(original)))
    # The encoder's answer does not depend on the decoder's layers: one run serves all of these.
    encoded = encode(model, batches) if name == "decoder" else None
    losses, removed = [mean_loss(model, batches, encoded)], []
    while len(kept) > count:
        trials = []
        for index in kept:
            module.layers = nn.ModuleList(original[i] for i in kept if i != index)
            trials.append((mean_loss(model, batches, encoded), index))
        loss, index = min(trials)
        kept.remove(index)
        losses.append(loss)
        removed.append(index)
    module.layers = nn.ModuleList(original[i] for i in kept)
    _number_layers(module)
    return Elimination(stack=name, removed=tuple(removed), losses=tuple(losses))


def encode(model: BartForConditionalGeneration, batches: Sequence[LossBatch]) -> list[Tensor]:
    """The encoder's hidden states of each batch, float[B, S, M]."""
    encoder = model.get_encoder()
    return [
        encoder(
            input_ids=batch.input_ids.to(model.device),
            attention_mask=batch.attention_mask.to(model.device),
        ).last_hidden_state
        for batch in batches
    ]


@torch.no_grad()
def mean_loss(
    model: BartForConditionalGeneration,
    batches: Sequence[LossBatch],
    encoded: Sequence[Tensor] | None = None,
) -> float:
    """Teacher-forced cross-entropy of the labels, nats per token.

    Args:
        model: In eval mode.
        batches: Sources and labels.
        encoded: What `encode` gave for them, if it is known already.
    """
    total, tokens = 0.0, 0
    for batch, hidden in zip(batches, encoded or encode(model, batches), strict=True):
        labels = batch.labels.to(model.device)
        logits = model(
            encoder_outputs=(hidden,),
            attention_mask=batch.attention_mask.to(model.device),
            decoder_input_ids=batch.decoder_input_ids.to(model.device),
            use_cache=False,
        ).logits
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        total += float(loss)
        tokens += int((labels != IGNORED).sum())
    return total / tokens


def _number_layers(module: BartEncoder | BartDecoder) -> None:
    """Give each attention its layer's new index: transformers' caches are looked up by it."""
    for index, layer in enumerate(module.layers):
        for child in layer.children():
            if isinstance(child, BartAttention):
                child.layer_idx = index
