"""Fit a build's limits to its checkpoint, and the engines' dimensions to both."""

from __future__ import annotations

from builders.checkpoint import Checkpoint
from builders.config import BuildConfig
from kobart_runtime.errors import ConfigError
from kobart_runtime.model_config import ModelShape
from kobart_runtime.settings import Limits

LENGTHS = ("max_source_length", "max_target_length")


def fit_limits(config: BuildConfig, max_positions: int) -> tuple[Limits, tuple[str, ...]]:
    """The build's limits, lengths not asked for being lowered to the model's positions.

    Returns:
        The limits, and a line for each one that was lowered.

    Raises:
        ConfigError: A length that was asked for is above the model's positions.
    """
    usual = [getattr(Limits, name) for name in LENGTHS]
    limits = config.limits(*(min(length, max_positions) for length in usual))
    notes = []
    for name, default in zip(LENGTHS, usual, strict=True):
        value = getattr(limits, name)
        if value > max_positions:
            raise ConfigError(
                f"{name} must be at most {max_positions}, the positions that this checkpoint has "
                f"learned, got {value}"
            )
        if getattr(config, name) is None and value < default:
            notes.append(f"{name} is lowered from {default} to {value}, the checkpoint's positions")
    return limits, tuple(notes)


def model_shape(checkpoint: Checkpoint, limits: Limits) -> ModelShape:
    """Dimensions of the engines.

    A beam step needs `1 + len(eos)` candidates per beam, as `generate()` takes; twice that leaves
    room for those that the rules strike out.
    """
    layers = checkpoint.model.model.decoder.layers
    candidates_per_beam = 2 * (1 + len(checkpoint.ids.eos))
    return ModelShape(
        num_decoder_layers=len(layers),
        num_heads=layers[0].self_attn.num_heads,
        head_dim=layers[0].self_attn.head_dim,
        vocab_size=checkpoint.vocab_size,
        num_candidates=min(checkpoint.vocab_size, candidates_per_beam * limits.max_beams),
    )
