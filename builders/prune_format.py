"""The checkpoint format of pruned models: shapes that transformers' BartConfig cannot express.

BartConfig has one feed-forward width per stack and takes head_dim for d_model / heads. Where a
pruned model needs more, its config.json carries, beside the keys of transformers,

    "kobart_triton": {"encoder_heads": [13, ...], "decoder_heads": [13, ...],
                      "encoder_ffn_dims": [2458, ...], "decoder_ffn_dims": [2458, ...]}

with one entry per layer, head_dim staying d_model / heads of the plain keys. `PrunedBart` loads
such a folder. transformers' own class refuses it (the sizes do not match), as it must.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from transformers import BartConfig, BartForConditionalGeneration
from transformers.models.bart.modeling_bart import BartAttention

from builders.prune_resize import keep_heads, keep_neurons
from kobart_runtime.errors import CheckpointError

EXTENSION = "kobart_triton"


@dataclass(frozen=True, kw_only=True)
class LayerShapes:
    """Sizes of each layer; a decoder layer's self- and cross-attention have the same heads."""

    encoder_heads: tuple[int, ...]
    decoder_heads: tuple[int, ...]
    encoder_ffn_dims: tuple[int, ...]
    decoder_ffn_dims: tuple[int, ...]

    @classmethod
    def of(cls, model: BartForConditionalGeneration) -> LayerShapes:
        """As the modules are now."""
        encoder, decoder = model.model.encoder.layers, model.model.decoder.layers
        return cls(
            encoder_heads=tuple(layer.self_attn.num_heads for layer in encoder),
            decoder_heads=tuple(layer.self_attn.num_heads for layer in decoder),
            encoder_ffn_dims=tuple(layer.fc1.out_features for layer in encoder),
            decoder_ffn_dims=tuple(layer.fc1.out_features for layer in decoder),
        )

    @classmethod
    def plain(cls, config: Any) -> LayerShapes:
        """As transformers builds a model of this configuration."""
        return cls(
            encoder_heads=(config.encoder_attention_heads,) * config.encoder_layers,
            decoder_heads=(config.decoder_attention_heads,) * config.decoder_layers,
            encoder_ffn_dims=(config.encoder_ffn_dim,) * config.encoder_layers,
            decoder_ffn_dims=(config.decoder_ffn_dim,) * config.decoder_layers,
        )


class PrunedBart(BartForConditionalGeneration):
    """A BartForConditionalGeneration whose layers may be smaller than its plain keys say."""

    def __init__(self, config: BartConfig) -> None:
        super().__init__(config)
        extension = getattr(config, EXTENSION, None)
        if extension is not None:
            _resize(self, _read(extension, LayerShapes.plain(config)))


def store_shapes(model: BartForConditionalGeneration) -> None:
    """Make a model's config say what its layers are, so that `save_pretrained` writes it."""
    config, shapes = model.config, LayerShapes.of(model)
    config.encoder_layers = len(shapes.encoder_heads)
    config.decoder_layers = len(shapes.decoder_heads)
    config.encoder_ffn_dim = max(shapes.encoder_ffn_dims)
    config.decoder_ffn_dim = max(shapes.decoder_ffn_dims)
    if shapes == LayerShapes.plain(config):
        vars(config).pop(EXTENSION, None)
    else:
        setattr(config, EXTENSION, {name: list(row) for name, row in asdict(shapes).items()})


def dimensions(model: BartForConditionalGeneration) -> dict[str, Any]:
    """Dimensions as a manifest states them; a list where the layers of a stack differ."""
    config, shapes = model.config, LayerShapes.of(model)
    return {
        "d_model": config.d_model,
        "encoder_layers": len(shapes.encoder_heads),
        "decoder_layers": len(shapes.decoder_heads),
        "encoder_attention_heads": _one_or_list(shapes.encoder_heads),
        "decoder_attention_heads": _one_or_list(shapes.decoder_heads),
        "encoder_ffn_dim": _one_or_list(shapes.encoder_ffn_dims),
        "decoder_ffn_dim": _one_or_list(shapes.decoder_ffn_dims),
        "max_position_embeddings": config.max_position_embeddings,
        "vocab_size": config.vocab_size,
    }


def _one_or_list(sizes: tuple[int, ...]) -> int | list[int]:
    return sizes[0] if len(set(sizes)) == 1 else list(sizes)


def _read(extension: object, plain: LayerShapes) -> LayerShapes:
    """Check the extension against the plain keys.

    Raises:
        CheckpointError: It lacks a row, or a size is not from 1 to the plain one.
    """
    names = [field.name for field in fields(LayerShapes)]
    if not isinstance(extension, dict) or sorted(extension) != sorted(names):
        raise CheckpointError(
            f"config.json: {EXTENSION} must be an object with the keys {', '.join(names)}, "
            f"got {extension!r}"
        )
    for name in names:
        _check_row(name, extension[name], getattr(plain, name))
    if len(set(extension["decoder_heads"])) > 1:
        raise CheckpointError(
            f"config.json: {EXTENSION} has decoder_heads {extension['decoder_heads']}, all "
            "decoder layers must have the same number"
        )
    return LayerShapes(**{name: tuple(extension[name]) for name in names})


def _check_row(name: str, row: object, limits: tuple[int, ...]) -> None:
    fits = isinstance(row, list) and len(row) == len(limits)
    if not fits or not all(
        type(size) is int and 1 <= size <= limit
        for size, limit in zip(row, limits, strict=True)  # type: ignore[call-overload]
    ):
        raise CheckpointError(
            f"config.json: {EXTENSION} has {name} {row!r}, it must be {len(limits)} whole numbers "
            f"from 1 to {limits[0]}, one per layer"
        )


def _resize(model: BartForConditionalGeneration, shapes: LayerShapes) -> None:
    """Shrink freshly made layers; which neurons stay does not matter before weights are loaded."""
    for stack, heads, ffn_dims in (
        (model.model.encoder, shapes.encoder_heads, shapes.encoder_ffn_dims),
        (model.model.decoder, shapes.decoder_heads, shapes.decoder_ffn_dims),
    ):
        for layer, num_heads, ffn_dim in zip(stack.layers, heads, ffn_dims, strict=True):
            keep_neurons(layer, torch.arange(ffn_dim))
            for module in layer.children():
                if isinstance(module, BartAttention):
                    keep_heads(module, torch.arange(num_heads))
