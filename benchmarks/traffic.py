"""Requests of many lengths, widths and numbers of new tokens, the same at every run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TypeAlias, TypeVar

import numpy as np

from benchmarks.decoding import FIRST_TEXT_ID, exact_length
from kobart_runtime.settings import GenerationSettings
from kobart_runtime.tokenizer import Tokenizer

Call: TypeAlias = tuple[np.ndarray, GenerationSettings]  # source ids int32[S]
TextCall: TypeAlias = tuple[str, GenerationSettings]
AnyCall = TypeVar("AnyCall", Call, TextCall)
NUM_BEAMS = (1, 4)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What comes in. Source lengths are lognormal, new tokens uniform, beams half and half."""

    num_requests: int = 200
    in_flight: int = 16  # always so many, until none are left
    p50_len: int = 180
    p90_len: int = 320
    min_len: int = 16
    max_len: int = 700
    min_new_tokens: int = 8
    max_new_tokens: int = 128
    seed: int = 0

    def source_lens(self) -> list[int]:
        """Equally spaced quantiles of the distribution, clipped and shuffled."""
        normal = statistics.NormalDist()
        deviation = math.log(self.p90_len / self.p50_len) / normal.inv_cdf(0.9)
        shares = (np.arange(self.num_requests) + 0.5) / self.num_requests
        logs = [math.log(self.p50_len) + deviation * normal.inv_cdf(share) for share in shares]
        lens = np.clip(np.rint(np.exp(logs)), self.min_len, self.max_len).astype(int)
        return self._shuffled(lens, 0)

    def settings(self) -> list[GenerationSettings]:
        """One a request: no early end, so that every system generates as many tokens."""
        spaced = np.linspace(self.min_new_tokens, self.max_new_tokens, self.num_requests)
        tokens = self._shuffled(np.rint(spaced).astype(int), 1)
        beams = self._shuffled(np.resize(NUM_BEAMS, self.num_requests), 2)
        return [exact_length(width, count) for width, count in zip(beams, tokens, strict=True)]

    def calls(self, num_ids: int) -> list[Call]:
        """Sources of random ids below `num_ids`."""
        rng = np.random.default_rng((self.seed, 3))
        sources = [
            rng.integers(FIRST_TEXT_ID, num_ids, length, dtype=np.int32)
            for length in self.source_lens()
        ]
        return list(zip(sources, self.settings(), strict=True))

    def texts(self, sentences: Sequence[str], tokenizer: Tokenizer) -> list[TextCall]:
        """Sources of sentences, each joined until it has as many tokens as it should."""
        stream = cycle(sentences)
        joined = [_joined(stream, length, tokenizer) for length in self.source_lens()]
        return list(zip(joined, self.settings(), strict=True))

    def _shuffled(self, values: np.ndarray, stream: int) -> list[int]:
        shuffled: list[int] = (
            np.random.default_rng((self.seed, stream)).permutation(values).tolist()
        )
        return shuffled


def _joined(stream: Iterator[str], length: int, tokenizer: Tokenizer) -> str:
    text = next(stream)
    while len(tokenizer.encode(text).input_ids) < length:
        text += f"\n{next(stream)}"
    return text


def waves(calls: Sequence[AnyCall], size: int) -> Iterator[list[AnyCall]]:
    """Requests in the order of their arrival, so many at a time."""
    for first in range(0, len(calls), size):
        yield list(calls[first : first + size])


def by_beams(calls: Sequence[AnyCall]) -> list[list[AnyCall]]:
    """Requests that can be decoded in one batch: those of one beam width."""
    groups: dict[int, list[AnyCall]] = {}
    for call in calls:
        groups.setdefault(call[1].num_beams, []).append(call)
    return [groups[num_beams] for num_beams in sorted(groups)]


def longest_settings(calls: Sequence[AnyCall]) -> GenerationSettings:
    """Of a batch that is decoded until its longest request ends."""
    return max((settings for _, settings in calls), key=lambda each: each.max_new_tokens)
