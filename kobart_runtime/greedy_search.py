"""Greedy search: the best token at every step, as `generate(num_beams=1)` chooses it."""

from __future__ import annotations

import numpy as np

from kobart_runtime.logits_rules import LogitsRules, Row
from kobart_runtime.model_config import TokenIds
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings

_SINGLE_BEAM = np.zeros(1, np.int64)


class GreedySearch:
    """See `search.Search`."""

    num_beams = 1

    def __init__(self, settings: GenerationSettings, ids: TokenIds) -> None:
        self._rules = LogitsRules(settings, ids)
        self._ids = ids
        self._max_new_tokens = settings.max_new_tokens
        self._tokens = np.full((1, settings.max_new_tokens + 1), ids.decoder_start, np.int32)
        self.num_generated = 0
        self.generated: Generated | None = None

    @property
    def input_ids(self) -> np.ndarray:
        """The last token, int32[1]."""
        return self._tokens[:, self.num_generated]

    def prepare(self, num_candidates: int) -> bool:
        """Work out the rules of the next token; whether `advance` needs the logits."""
        if self._rules.forced(self.num_generated) is not None:
            return False
        self._row_rules = self._rules.rows(self._tokens[:, : self.num_generated + 1])[0]
        return self._rules.has_penalty or len(self._row_rules.banned) >= num_candidates

    def advance(
        self, logprobs: np.ndarray, ids: np.ndarray, logits: np.ndarray | None
    ) -> np.ndarray | None:
        """Take the best token that the rules leave."""
        forced = self._rules.forced(self.num_generated)
        token = forced if forced is not None else self._best(logprobs, ids, logits)
        chose_eos = token in self._ids.eos and not self._rules.forces_end(self.num_generated)
        self.num_generated += 1
        self._tokens[0, self.num_generated] = token
        if chose_eos or self.num_generated == self._max_new_tokens:
            reason = "stop" if chose_eos else "length"
            self.generated = Generated(tuple(self.committed()), reason)
            return None
        return _SINGLE_BEAM

    def committed(self) -> list[int]:
        """All tokens so far: greedy search never goes back."""
        return self._tokens[0, 1 : self.num_generated + 1].tolist()

    def _best(self, logprobs: np.ndarray, ids: np.ndarray, logits: np.ndarray | None) -> int:
        row = Row(logprobs[0], ids[0], None if logits is None else logits[0])
        scores, tokens = self._rules.best(row, self._row_rules, 1, raw=True)
        return int(tokens[scores.argmax()])
