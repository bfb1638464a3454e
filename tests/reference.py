"""Slow, obvious greedy and beam search: what the runtime's must equal, token for token.

No cache, one request at a time, the whole vocabulary at every step, plain tuples. Written from
transformers 5 (`_sample`, `_beam_search`, `logits_process.py`), not from the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from kobart_runtime.model_config import TokenIds
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings

# float32[V] logits of the token after a prefix that begins with the decoder start.
NextLogits = Callable[[tuple[int, ...]], np.ndarray]

NEVER = np.float32(-1e9)


class UndeterminedError(Exception):
    """Here `generate()` depends on which of equal scores `torch.topk` happens to put first.

    It comes to that where the rules leave fewer continuations than beam search wants to keep.
    """


@dataclass(frozen=True)
class Hypothesis:
    prefix: tuple[int, ...]
    score: np.float32  # running: sum of log-probabilities; finished: divided by the length penalty


def generate(next_logits: NextLogits, settings: GenerationSettings, ids: TokenIds) -> Generated:
    """What `transformers` `generate()` returns."""
    search = greedy_search if settings.num_beams == 1 else beam_search
    prefix = search(next_logits, settings, ids)[1:]
    forced = len(prefix) == settings.max_new_tokens and ids.forced_eos is not None
    return Generated(prefix, "stop" if prefix[-1] in ids.eos and not forced else "length")


def greedy_search(
    next_logits: NextLogits, settings: GenerationSettings, ids: TokenIds
) -> tuple[int, ...]:
    prefix: tuple[int, ...] = (ids.decoder_start,)
    while not _has_ended(prefix, settings, ids):
        scores = process(next_logits(prefix), prefix, settings, ids)
        if np.isneginf(scores).all():
            raise UndeterminedError("every token is struck out")
        prefix = (*prefix, int(np.argmax(scores)))
    return prefix


def beam_search(
    next_logits: NextLogits, settings: GenerationSettings, ids: TokenIds
) -> tuple[int, ...]:
    num_beams = settings.num_beams
    running = [Hypothesis((ids.decoder_start,), np.float32(0))]
    running += [Hypothesis((ids.decoder_start,), NEVER)] * (num_beams - 1)
    nothing = Hypothesis((), NEVER)
    finished = [nothing] * num_beams
    while True:
        best = _best_continuations(running, next_logits, settings, ids)
        ended = [_has_ended(hypothesis.prefix, settings, ids) for hypothesis in best]
        running = _ranked(
            replace(hypothesis, score=hypothesis.score + NEVER) if end else hypothesis
            for hypothesis, end in zip(best, ended, strict=True)
        )[:num_beams]
        length = np.float32((len(running[0].prefix) - 1) ** settings.length_penalty)
        # Only the best num_beams may finish; the others are there to go on in their stead.
        new = [
            replace(hypothesis, score=hypothesis.score / length)
            for hypothesis, end in zip(best[:num_beams], ended[:num_beams], strict=True)
            if end
        ]
        if new and new[0].score <= NEVER / 10:
            raise UndeterminedError("a finished score is as low as that of no hypothesis at all")
        finished = _ranked([*finished, *new])[:num_beams]
        all_finished = nothing not in finished
        can_improve = running[0].score / length > finished[-1].score
        if all(ended) or not can_improve or (all_finished and settings.early_stopping):
            return finished[0].prefix


def process(
    scores: np.ndarray, prefix: tuple[int, ...], settings: GenerationSettings, ids: TokenIds
) -> np.ndarray:
    """All logits processors in their order, over float32[V]."""
    scores = scores.copy()
    _penalise_repetition(scores, prefix, np.float32(settings.repetition_penalty))
    _ban_repeated_ngrams(scores, prefix, settings.no_repeat_ngram_size)
    num_generated = len(prefix) - 1
    if num_generated < settings.min_new_tokens:
        scores[list(ids.eos)] = -np.inf
    if num_generated == 0 and ids.forced_bos is not None:
        _force(scores, ids.forced_bos)
    if num_generated == settings.max_new_tokens - 1 and ids.forced_eos is not None:
        _force(scores, ids.forced_eos)
    return scores


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """float32[V], in the order of operations of `torch.log_softmax`."""
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def _penalise_repetition(scores: np.ndarray, prefix: tuple[int, ...], penalty: np.float32) -> None:
    for token in set(prefix):
        score = scores[token]
        scores[token] = score * penalty if score < 0 else score / penalty


def _ban_repeated_ngrams(scores: np.ndarray, prefix: tuple[int, ...], size: int) -> None:
    if size < 1 or len(prefix) < size:
        return
    seen = {prefix[i : i + size] for i in range(len(prefix) - size + 1)}
    for token in range(len(scores)):
        if (*prefix, token)[-size:] in seen:
            scores[token] = -np.inf


def _force(scores: np.ndarray, token: int) -> None:
    scores[:] = -np.inf
    scores[token] = 0


def _is_forced(prefix: tuple[int, ...], settings: GenerationSettings, ids: TokenIds) -> bool:
    is_first, is_last = len(prefix) == 1, len(prefix) == settings.max_new_tokens
    return (is_first and ids.forced_bos is not None) or (is_last and ids.forced_eos is not None)


def _has_ended(prefix: tuple[int, ...], settings: GenerationSettings, ids: TokenIds) -> bool:
    num_generated = len(prefix) - 1
    if num_generated == 0:
        return False
    return prefix[-1] in ids.eos or num_generated == settings.max_new_tokens


def _best_continuations(
    running: list[Hypothesis],
    next_logits: NextLogits,
    settings: GenerationSettings,
    ids: TokenIds,
) -> list[Hypothesis]:
    continuations: list[Hypothesis] = []
    for beam in running:
        scores = process(log_softmax(next_logits(beam.prefix)), beam.prefix, settings, ids)
        continuations += [
            Hypothesis((*beam.prefix, token), score + beam.score)
            for token, score in enumerate(scores)
        ]
    ranked = _ranked(continuations)
    num_kept = max(2, 1 + len(ids.eos)) * settings.num_beams
    if (
        not _is_forced(running[0].prefix, settings, ids)
        and ranked[num_kept - 1].score <= NEVER / 10
    ):
        raise UndeterminedError("fewer continuations are left than are kept")
    return ranked[:num_kept]


def _ranked(hypotheses: Iterable[Hypothesis]) -> list[Hypothesis]:
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)
