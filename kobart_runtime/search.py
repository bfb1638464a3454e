"""What greedy and beam search share: their interface, and how a generation ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Generated:
    """A finished summary."""

    ids: tuple[int, ...]  # decoder start excluded, final eos included
    finish_reason: str  # "stop": eos was chosen; "length": the limit came first


class Search(Protocol):
    """Chooses the tokens of one request; one instance lives from admission to retirement.

    A decode step is: `prepare`, feed `input_ids`, `advance` with what the engine returned.
    """

    num_beams: int
    num_generated: int  # tokens of each live beam, decoder start excluded
    generated: Generated | None  # the result, once the search has ended

    @property
    def input_ids(self) -> np.ndarray:
        """The last token of each live beam, int32[W]."""

    def prepare(self, num_candidates: int) -> bool:
        """Work out the rules of the next token.

        Returns:
            Whether `advance` needs the logits beside the `num_candidates` best of each row.
        """

    def advance(
        self, logprobs: np.ndarray, ids: np.ndarray, logits: np.ndarray | None
    ) -> np.ndarray | None:
        """Choose the next token of each beam.

        Args:
            logprobs: float32[W, K], the engine's candidates, sorted.
            ids: int32[W, K].
            logits: float32[W, V] if `prepare` asked for them.

        Returns:
            int64[W], which old beam each new beam continues; None once the search has ended.
        """

    def committed(self) -> list[int]:
        """Tokens that every possible result begins with, decoder start excluded."""
