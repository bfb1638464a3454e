"""Beam search, token for token that of transformers 5 `GenerationMixin._beam_search`.

That search keeps running beams and finished ones apart: each step ranks the best continuations of
all running beams, moves those that end to the finished ones (which hold at most `num_beams`), and
goes on with the best that do not end. Scores are float32 sums of processed log-probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kobart_runtime.logits_rules import LogitsRules, Row
from kobart_runtime.model_config import TokenIds
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings

# The score of beams that must not win; transformers' own constant.
_NEVER = np.float32(-1e9)


@dataclass(frozen=True)
class _Finished:
    score: np.float32  # sum of log-probabilities / length ** length_penalty
    tokens: tuple[int, ...]
    finish_reason: str


class BeamSearch:
    """See `search.Search`."""

    def __init__(self, settings: GenerationSettings, ids: TokenIds) -> None:
        self._settings = settings
        self._ids = ids
        self._rules = LogitsRules(settings, ids)
        self.num_beams = settings.num_beams
        # Enough continuations that num_beams remain if every beam ends in every way it can.
        self._num_kept = max(2, 1 + len(ids.eos)) * settings.num_beams
        self._tokens = np.full(
            (settings.num_beams, settings.max_new_tokens + 1), ids.decoder_start, np.int32
        )
        # All beams start alike: only the first may be continued, or they would stay alike.
        self._scores = np.full(settings.num_beams, _NEVER, np.float32)
        self._scores[0] = 0.0
        self._finished: list[_Finished] = []  # best first, at most num_beams
        self.num_generated = 0
        self.generated: Generated | None = None

    @property
    def input_ids(self) -> np.ndarray:
        """The last token of each running beam, int32[W]."""
        return self._tokens[:, self.num_generated]

    def prepare(self, num_candidates: int) -> bool:
        """Work out the rules of the next token; whether `advance` needs the logits."""
        if self._rules.forced(self.num_generated) is not None:
            return False
        self._row_rules = self._rules.rows(self._tokens[:, : self.num_generated + 1])
        num_banned = max(len(rules.banned) for rules in self._row_rules)
        return self._rules.has_penalty or self._num_kept + num_banned > num_candidates

    def advance(
        self, logprobs: np.ndarray, ids: np.ndarray, logits: np.ndarray | None
    ) -> np.ndarray | None:
        """Rank all continuations, finish those that end, go on with the best others."""
        scores, beams, tokens = self._continuations(logprobs, ids, logits)
        order = np.argsort(-scores, kind="stable")[: self._num_kept]
        at_limit = self.num_generated + 1 == self._settings.max_new_tokens
        ends = np.isin(tokens[order], self._ids.eos) | at_limit
        for rank in np.flatnonzero(ends[: self.num_beams]):
            chosen = order[rank]
            self._finish(scores[chosen], beams[chosen], tokens[chosen])
        # A stable sort by "ends" alone keeps the ranking inside both groups.
        running = order[np.argsort(ends, kind="stable")][: self.num_beams]
        self._continue(scores[running], beams[running], tokens[running])
        if self._has_ended(all_end=bool(ends.all())):
            best = self._finished[0]
            self.generated = Generated(best.tokens, best.finish_reason)
            return None
        return beams[running]

    def committed(self) -> list[int]:
        """The common prefix of all running beams and the best finished one.

        Finished beams below the best can never win: they keep their scores, and so does it.
        """
        columns = self._tokens[:, 1 : self.num_generated + 1]
        same = (columns == columns[0]).all(axis=0)
        prefix = columns[0].tolist()[: _count_leading(same.tolist())]
        if not self._finished:
            return prefix
        best = self._finished[0].tokens
        return prefix[: _count_leading([a == b for a, b in zip(prefix, best, strict=False)])]

    def _continuations(
        self, logprobs: np.ndarray, ids: np.ndarray, logits: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Accumulated score float32[N], beam int64[N] and token int32[N] of what may come next."""
        forced = self._rules.forced(self.num_generated)
        if forced is not None:
            beams = np.arange(self.num_beams)
            return self._scores.copy(), beams, np.full(self.num_beams, forced, np.int32)
        rows = []
        for beam, rules in enumerate(self._row_rules):
            row = Row(logprobs[beam], ids[beam], None if logits is None else logits[beam])
            scores, tokens = self._rules.best(row, rules, self._num_kept, raw=False)
            beams = np.full(len(tokens), beam, np.int64)
            rows.append((scores + self._scores[beam], beams, tokens))
        scores, beams, tokens = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        return scores, beams, tokens

    def _finish(self, score: np.float32, beam: int, token: int) -> None:
        length = self.num_generated + 1
        penalised = self._with_length_penalty(score, length)
        chose_eos = token in self._ids.eos and not self._rules.forces_end(self.num_generated)
        tokens = (*self._tokens[beam, 1:length].tolist(), int(token))
        self._finished.append(_Finished(penalised, tokens, "stop" if chose_eos else "length"))
        self._finished.sort(key=lambda finished: -finished.score)
        del self._finished[self.num_beams :]

    def _continue(self, scores: np.ndarray, beams: np.ndarray, tokens: np.ndarray) -> None:
        self._tokens = self._tokens[beams]
        self.num_generated += 1
        self._tokens[:, self.num_generated] = tokens
        self._scores = scores

    def _has_ended(self, *, all_end: bool) -> bool:
        if all_end:
            return True
        if len(self._finished) < self.num_beams:
            return False
        if self._settings.early_stopping:
            return True
        # Whether the best running beam, if it ended now, would beat the worst finished one.
        possible = self._with_length_penalty(self._scores[0], self.num_generated)
        return bool(possible <= self._finished[-1].score)

    def _with_length_penalty(self, score: np.float32, length: int) -> np.float32:
        """A sum of log-probabilities made comparable between lengths.

        Penalties far out of the usual give infinite scores, not an error: that would fail the
        other requests of the step too.
        """
        with np.errstate(all="ignore"):
            divisor = np.float32(np.float64(length) ** self._settings.length_penalty)
            return np.float32(score / divisor)


def _count_leading(flags: list[bool]) -> int:
    """How many flags are true before the first that is not."""
    return flags.index(False) if False in flags else len(flags)
