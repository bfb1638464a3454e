"""What `--prune` asks for: the text of a flag, checked and taken apart. No model, no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kobart_runtime.errors import ConfigError

TWO_FOUR = "2:4"
BY_AMOUNT = ("magnitude", "global", "structured")
FORMS = "magnitude=0.3, global=0.4, structured=0.2, layers=encoder:4,decoder:3 or 2:4"
STACK = re.compile(r"(encoder|decoder):([1-9][0-9]{0,2})")


@dataclass(frozen=True, kw_only=True)
class PruneStep:
    """One `--prune` of a build."""

    text: str  # as it was given
    method: str  # one of BY_AMOUNT, "layers" or "2:4"
    amount: float = 0.0  # share to remove, for the methods of BY_AMOUNT
    encoder_layers: int | None = None  # how many to keep; None: all
    decoder_layers: int | None = None


def check_amount(amount: float) -> float:
    """The share of weights, neurons or heads to remove.

    Raises:
        ConfigError: It is no number, or not from 0 to below 1; the whole number 1 is no share.
    """
    is_number = isinstance(amount, (int, float)) and not isinstance(amount, bool)
    if not is_number or not math.isfinite(amount) or not 0 <= amount < 1:
        raise ConfigError(
            f"the amount to prune must be a share from 0 to below 1 (0.3 = 30 %), got {amount!r}"
        )
    return float(amount)


def parse_step(text: str) -> PruneStep:
    """Take one flag's text apart.

    Raises:
        ConfigError: It has none of the known forms, or a number out of range.
    """
    method, _, value = text.partition("=")
    if text == TWO_FOUR:
        return PruneStep(text=text, method=TWO_FOUR)
    if method == "layers" and value:
        return PruneStep(text=text, method=method, **_parse_layers(text, value))
    if method in BY_AMOUNT and value:
        return PruneStep(text=text, method=method, amount=_parse_amount(text, value))
    raise ConfigError(f"prune must be {FORMS}, got {text!r}")


def parse_steps(texts: Sequence[str], patterns: Sequence[str]) -> tuple[PruneStep, ...]:
    """All steps of a build, in the order in which they were given.

    Raises:
        ConfigError: A step is malformed, or layers are named that no step would use.
    """
    steps = tuple(parse_step(text) for text in texts)
    if patterns and all(step.method == "layers" for step in steps):
        raise ConfigError(
            f"prune_layers {', '.join(patterns)} names the layers of a magnitude, global, "
            "structured or 2:4 pruning, and none is asked for: add --prune, such as magnitude=0.3"
        )
    return steps


def _parse_amount(text: str, value: str) -> float:
    try:
        amount = float(value)
    except ValueError:
        raise ConfigError(f"prune {text!r} needs a number behind '=', such as 0.3") from None
    if amount == 0:
        raise ConfigError(f"prune {text!r} removes nothing: leave it out")
    return check_amount(amount)


def _parse_layers(text: str, value: str) -> dict[str, int]:
    kept: dict[str, int] = {}
    for part in value.split(","):
        found = STACK.fullmatch(part.strip())
        name = f"{found[1]}_layers" if found else ""
        if found is None or name in kept:
            raise ConfigError(
                f"prune {text!r}: layers wants how many to keep of each stack, at least 1, such "
                "as layers=encoder:4,decoder:3"
            )
        kept[name] = int(found[2])
    return kept
