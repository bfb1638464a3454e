"""Documents and generation settings as perf_analyzer's input file."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kobart_runtime import bindings
from kobart_runtime.errors import ConfigError
from kobart_runtime.settings import GenerationSettings


@dataclass(frozen=True)
class Lengths:
    """A distribution of document lengths, in characters."""

    choices: tuple[tuple[int, float], ...]  # length, weight

    @classmethod
    def parse(cls, text: str) -> Lengths:
        """Read `400`, `200,800` or `200:3,1500:1` (three short ones for a long one).

        Raises:
            ConfigError: It is none of these.
        """
        try:
            pairs = [part.partition(":") for part in text.split(",")]
            choices = tuple((int(length), float(weight or 1)) for length, _, weight in pairs)
        except ValueError as error:
            raise ConfigError(
                f"lengths must be CHARACTERS[:WEIGHT] separated by commas, got {text!r}"
            ) from error
        if any(length < 1 or weight <= 0 for length, weight in choices):
            raise ConfigError(f"lengths and weights must be above 0, got {text!r}")
        return cls(choices)

    def draw(self, count: int, seed: int) -> list[int]:
        """Lengths of some documents, the same for the same seed."""
        lengths, weights = zip(*self.choices, strict=True)
        return random.Random(seed).choices(lengths, weights, k=count)


def of_lengths(documents: Sequence[str], lengths: Sequence[int]) -> list[str]:
    """Documents of given lengths, made from real ones: joined by line ends, then cut.

    Raises:
        ConfigError: There is no document to take from.
    """
    if not any(document.strip() for document in documents):
        raise ConfigError("there is no document to make inputs from: give some")
    return [_of_length(documents, index, length) for index, length in enumerate(lengths)]


def perf_input(
    documents: Sequence[str], settings: GenerationSettings, *, stream: bool
) -> dict[str, list[dict[str, object]]]:
    """The content of an `--input-data` file for the front model: every input, as a tensor."""
    shared: dict[str, object] = {bindings.STREAM: [stream]}
    shared |= {name: [value] for name, value in vars(settings).items()}
    return {"data": [{bindings.TEXT_INPUT: [document], **shared} for document in documents]}


def write_json(path: Path, content: Mapping[str, object]) -> Path:
    """Write an input file; returns its path."""
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def _of_length(documents: Sequence[str], index: int, length: int) -> str:
    pieces: list[str] = []
    while sum(map(len, pieces)) + len(pieces) - 1 < length:
        pieces.append(documents[index % len(documents)].strip())
        index += 1
    return "\n".join(pieces)[:length]
