"""The rules of `transformers`' logits processors, applied to a few candidates a row.

The engine returns the K best tokens of each row. Rules touch few tokens: those that are struck
out, and with a repetition penalty those that were generated before. So the processed best of a
row is found among the untouched candidates and the touched tokens, without a pass over the
vocabulary; where K leaves too few untouched candidates, the whole row is processed.

Order and arithmetic follow transformers 5 `GenerationMixin._get_logits_processor`:
repetition penalty, no repeated n-gram, minimum length, forced bos, forced eos; on raw logits in
greedy search, on log-probabilities in beam search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kobart_runtime.model_config import TokenIds
from kobart_runtime.settings import GenerationSettings


@dataclass(frozen=True)
class RowRules:
    """What the rules say of one row's next token."""

    banned: frozenset[int]
    penalised: frozenset[int]

    @property
    def touched(self) -> frozenset[int]:
        """Tokens whose score the engine's candidates do not tell."""
        return self.banned | self.penalised


@dataclass(frozen=True)
class Row:
    """One row of a decode step."""

    logprobs: np.ndarray  # float32[K], sorted
    ids: np.ndarray  # int32[K]
    logits: np.ndarray | None  # float32[V], where they were asked for

    def scores(self, ids: np.ndarray | slice, *, raw: bool) -> np.ndarray:
        """Raw logits or log-probabilities of `ids`, float32; needs `logits`."""
        assert self.logits is not None
        if raw:
            return self.logits[ids]
        # logits - best - log(sum(exp(logits - best))), as torch.log_softmax computes it.
        return (self.logits[ids] - self.logits[self.ids[0]]) + self.logprobs[0]


class LogitsRules:
    """The rules of one request."""

    def __init__(self, settings: GenerationSettings, ids: TokenIds) -> None:
        self._settings = settings
        self._ids = ids
        self._penalty = np.float32(settings.repetition_penalty)
        self.has_penalty = settings.repetition_penalty != 1.0

    def forces_end(self, num_generated: int) -> bool:
        """Whether the next token is the last that fits and the checkpoint forces which it is."""
        at_limit = num_generated == self._settings.max_new_tokens - 1
        return at_limit and self._ids.forced_eos is not None

    def forced(self, num_generated: int) -> int | None:
        """The one token that may come next, if there is only one."""
        if self.forces_end(num_generated):
            return self._ids.forced_eos
        return self._ids.forced_bos if num_generated == 0 else None

    def rows(self, tokens: np.ndarray) -> list[RowRules]:
        """What each row's past forbids.

        Args:
            tokens: int32[W, T], decoder start and generated tokens of each beam.
        """
        num_generated = tokens.shape[1] - 1
        eos = self._ids.eos if num_generated < self._settings.min_new_tokens else ()
        banned = repeated_ngram_ends(tokens, self._settings.no_repeat_ngram_size)
        return [
            RowRules(
                banned=frozenset(ends.union(eos)),
                penalised=frozenset(row.tolist() if self.has_penalty else ()),
            )
            for ends, row in zip(banned, tokens, strict=True)
        ]

    def best(
        self, row: Row, rules: RowRules, count: int, *, raw: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """At least the `count` best tokens of a row after all rules but the forcing ones.

        Args:
            row: The engine's output.
            rules: From `rows`.
            count: Tokens needed; fewer are returned only if the rules leave fewer.
            raw: Whether scores are raw logits (greedy search) or log-probabilities (beams).

        Returns:
            Scores float32[N] in no particular order, and their ids int32[N].
        """
        touched = rules.touched
        if not touched and len(row.ids) >= count:
            return row.logprobs, row.ids
        untouched = np.fromiter((token not in touched for token in row.ids.tolist()), bool)
        if untouched.sum() < count and row.logits is not None:
            return self._best_of_all(row, rules, count, raw=raw)
        ids = row.ids[untouched]
        if not self.has_penalty:
            return row.logprobs[untouched], ids
        seen = np.fromiter(rules.penalised - rules.banned, np.int32)
        scores = [row.scores(ids, raw=raw), self._penalise(row.scores(seen, raw=raw))]
        return np.concatenate(scores), np.concatenate([ids, seen])

    def _best_of_all(
        self, row: Row, rules: RowRules, count: int, *, raw: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        scores = row.scores(slice(None), raw=raw).copy()
        seen = np.fromiter(rules.penalised, np.int64)
        scores[seen] = self._penalise(scores[seen])
        scores[np.fromiter(rules.banned, np.int64)] = -np.inf
        count = min(count, len(scores))
        ids = np.argpartition(-scores, count - 1)[:count].astype(np.int32)
        return scores[ids], ids

    def _penalise(self, scores: np.ndarray) -> np.ndarray:
        """CTRL's penalty (arXiv:1909.05858, section 4.1) as transformers applies it."""
        with np.errstate(over="ignore"):  # infinite scores are meant, as there
            return np.where(scores < 0, scores * self._penalty, scores / self._penalty)


def repeated_ngram_ends(tokens: np.ndarray, size: int) -> list[set[int]]:
    """The tokens that would complete an n-gram which a row holds already.

    Args:
        tokens: int32[W, T].
        size: n; 0 switches the rule off.

    Returns:
        One set for each row.
    """
    num_rows, length = tokens.shape
    ends: list[set[int]] = [set() for _ in range(num_rows)]
    num_windows = length - size + 1
    if size < 1 or num_windows < 1:
        return ends
    matches = np.ones((num_rows, num_windows), bool)
    for offset in range(size - 1):
        last = tokens[:, length - size + 1 + offset, None]
        matches &= tokens[:, offset : offset + num_windows] == last
    for row, window in zip(*np.nonzero(matches), strict=True):
        ends[row].add(int(tokens[row, window + size - 1]))
    return ends
