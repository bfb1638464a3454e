"""Which layers to prune: exact names, bare module names and glob patterns -> Linears of a model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import nn
from transformers import BartForConditionalGeneration

from kobart_runtime.errors import ConfigError

PRUNABLE = re.compile(r"model\.(encoder|decoder)\.layers\.\d+\..+")
OUTPUT_LAYER = "lm_head"
NUM_NEAR = 5

Refusal = Callable[[str], str | None]  # a Linear's name -> why it cannot be pruned, or None


def bare_name(name: str) -> str:
    """`fc1` of `model.encoder.layers.0.fc1`."""
    return name.rpartition(".")[2]


def prunable_linears(model: BartForConditionalGeneration) -> dict[str, nn.Linear]:
    """Every Linear of the encoder and decoder layers by name; never lm_head or an embedding.

    Raises:
        ConfigError: The model is no BartForConditionalGeneration.
    """
    if not isinstance(model, BartForConditionalGeneration):
        raise ConfigError(
            f"a BartForConditionalGeneration can be pruned, got a {type(model).__name__}"
        )
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and PRUNABLE.fullmatch(name)
    }


def select(
    model: BartForConditionalGeneration,
    patterns: Sequence[str] | None,
    refusal: Refusal = lambda name: None,
) -> dict[str, nn.Linear]:
    """The Linears that `patterns` name, in the model's order.

    A pattern takes all that it matches and the method can prune.

    Args:
        model: The model to prune.
        patterns: Exact names, bare names or globs; None: all that the method can prune.
        refusal: Why the method cannot prune a Linear.

    Raises:
        ConfigError: A pattern matches nothing (near names are listed), or nothing that can be
            pruned (the reason is given).
    """
    linears = prunable_linears(model)
    if patterns is None:
        return {name: linear for name, linear in linears.items() if refusal(name) is None}
    if isinstance(patterns, str) or not patterns:
        raise ConfigError(f"layers_to_prune must be a list of names or None, got {patterns!r}")
    chosen = {name for pattern in patterns for name in _allowed(model, linears, pattern, refusal)}
    return {name: linear for name, linear in linears.items() if name in chosen}


def _allowed(
    model: BartForConditionalGeneration,
    linears: dict[str, nn.Linear],
    pattern: str,
    refusal: Refusal,
) -> list[str]:
    names = [name for name in linears if _fits(name, pattern)]
    if not names:
        raise ConfigError(_why_unmatched(model, linears, pattern))
    allowed = [name for name in names if refusal(name) is None]
    if not allowed:
        raise ConfigError(str(refusal(names[0])))
    return allowed


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(bare_name(name), pattern)


def _why_unmatched(
    model: BartForConditionalGeneration, linears: dict[str, nn.Linear], pattern: str
) -> str:
    # Tied modules have several names, each of which may be asked for.
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, module in modules.items():
        if name == OUTPUT_LAYER and _fits(name, pattern):
            return (
                f"{pattern!r} names the output layer, which is never pruned: its weight is the "
                "embedding's too, so that every token's vector would change; name Linears of the "
                "encoder or decoder layers, such as fc1"
            )
        if isinstance(module, nn.Embedding) and _fits(name, pattern):
            return f"{pattern!r} names the embedding {name}, which is never pruned"
    return f"{pattern!r} matches no Linear of the encoder or decoder; near names: " + ", ".join(
        _near_names(linears, pattern)
    )


def _near_names(linears: dict[str, nn.Linear], pattern: str) -> list[str]:
    """Names like the pattern, those that differ in the layer's number alone given as one glob."""
    globs = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in linears)
    names = [*dict.fromkeys(bare_name(name) for name in linears), *globs]
    return difflib.get_close_matches(pattern, names, n=NUM_NEAR, cutoff=0.4) or names[:NUM_NEAR]
