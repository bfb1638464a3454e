"""Generation settings of one request, and the limits of a build that they must keep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from kobart_runtime.errors import ConfigError, InvalidArgumentError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one build accepts; every maximum is inclusive."""

    max_batch_size: int = 32  # requests decoded together
    max_source_length: int = 1024  # source tokens; longer sources are truncated and say so
    max_target_length: int = 256  # generated tokens, decoder start excluded
    max_beams: int = 8
    max_queue_size: int = 256  # waiting requests; a further one is UNAVAILABLE at once
    max_request_seconds: float = 120.0  # from arrival to the last response
    max_input_bytes: int = 524288  # UTF-8 bytes of text_input
    # MiB of K/V of the requests decoded together; None: half of what is free at the load.
    max_cache_mib: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ConfigError(f"{field.name} must be above 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """What `transformers` `generate()` would be given, with the same meaning."""

    num_beams: int = 4
    max_new_tokens: int = 128
    min_new_tokens: int = 0
    no_repeat_ngram_size: int = 3  # 0 switches the rule off
    repetition_penalty: float = 1.0  # arXiv:1909.05858, section 4.1
    length_penalty: float = 1.0  # exponent of the length that divides a beam's score
    early_stopping: bool = True

    def check(self, limits: Limits) -> None:
        """Refuse settings outside a build's limits.

        Raises:
            InvalidArgumentError: Names the field, the limit and the value.
        """
        _require_between("num_beams", self.num_beams, 1, limits.max_beams)
        _require_between("max_new_tokens", self.max_new_tokens, 1, limits.max_target_length)
        _require_at_least_zero("min_new_tokens", self.min_new_tokens)
        _require_at_least_zero("no_repeat_ngram_size", self.no_repeat_ngram_size)
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise InvalidArgumentError(
                "repetition_penalty must be a finite number above 0 (1.0 = off), "
                f"got {self.repetition_penalty}"
            )
        if not math.isfinite(self.length_penalty):
            raise InvalidArgumentError(
                f"length_penalty must be a finite number (1.0 = usual), got {self.length_penalty}"
            )

    def override(self, values: Mapping[str, object]) -> GenerationSettings:
        """These settings with some replaced.

        Raises:
            InvalidArgumentError: A name is not a setting; the message lists the valid ones.
        """
        unknown = sorted(set(values) - set(SETTING_NAMES))
        if unknown:
            raise InvalidArgumentError(
                f"unknown setting {', '.join(unknown)}: valid are {', '.join(SETTING_NAMES)}"
            )
        return replace(self, **values)  # type: ignore[arg-type]


SETTING_NAMES = tuple(field.name for field in fields(GenerationSettings))


def _require_between(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidArgumentError(f"{name} must be {low}..{high}, got {value}")


def _require_at_least_zero(name: str, value: int) -> None:
    if value < 0:
        raise InvalidArgumentError(f"{name} must be at least 0, got {value}")
