"""Rules on a few candidates equal transformers' processors on the whole vocabulary, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from kobart_runtime.greedy_search import GreedySearch
from kobart_runtime.logits_rules import LogitsRules, Row, repeated_ngram_ends
from kobart_runtime.model_config import TokenIds
from kobart_runtime.settings import GenerationSettings
from tests.reference import log_softmax, process

VOCAB_SIZE = 40
IDS = TokenIds(bos=0, eos=(1, 7), pad=3, decoder_start=2)


def processors(settings: GenerationSettings, ids: TokenIds) -> LogitsProcessorList:
    """As `GenerationMixin._get_logits_processor` puts them together."""
    chosen = LogitsProcessorList()
    if settings.repetition_penalty != 1.0:
        chosen.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size > 0:
        chosen.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    if settings.min_new_tokens > 0:
        chosen.append(MinNewTokensLengthLogitsProcessor(1, settings.min_new_tokens, list(ids.eos)))
    if ids.forced_bos is not None:
        chosen.append(ForcedBOSTokenLogitsProcessor(ids.forced_bos))
    if ids.forced_eos is not None:
        chosen.append(ForcedEOSTokenLogitsProcessor(settings.max_new_tokens + 1, ids.forced_eos))
    return chosen


def transformers_scores(
    scores: np.ndarray, prefix: np.ndarray, settings: GenerationSettings, ids: TokenIds
) -> np.ndarray:
    tokens: Any = torch.tensor(prefix[None], dtype=torch.int64)
    processed: Any = processors(settings, ids)(tokens, torch.tensor(scores[None]))
    result: np.ndarray = processed[0].numpy()
    return result


def random_logits(rng: np.random.Generator, *, ties: bool) -> np.ndarray:
    logits = 3 * rng.standard_normal(VOCAB_SIZE, dtype=np.float32)
    return np.round(logits) if ties else logits


def random_prefix(rng: np.random.Generator, *, num_tokens: int = 6) -> np.ndarray:
    """Decoder start and tokens out of a few, so that n-grams repeat."""
    tokens = rng.integers(0, num_tokens, rng.integers(0, 40))
    return np.array([IDS.decoder_start, *tokens], np.int32)


def random_settings(rng: np.random.Generator) -> GenerationSettings:
    return GenerationSettings(
        max_new_tokens=100,
        min_new_tokens=int(rng.choice([0, 0, 10, 100])),
        no_repeat_ngram_size=int(rng.integers(0, 16)) if rng.random() < 0.4 else 2,
        repetition_penalty=float(rng.choice([1.0, 1.3, 2.5, 0.6])),
    )


def engine_row(logits: np.ndarray, num_candidates: int) -> Row:
    """What a decode step returns for these logits."""
    ids = np.argsort(-logits, kind="stable")[:num_candidates]
    return Row(log_softmax(logits)[ids], ids.astype(np.int32), logits)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_best_equals_transformers(seed: int, ties: bool, raw: bool) -> None:
    rng = np.random.default_rng(seed)
    settings, prefix = random_settings(rng), random_prefix(rng)
    logits = random_logits(rng, ties=ties)
    count = int(rng.integers(1, 12))
    rules = LogitsRules(settings, IDS)
    row = engine_row(logits, int(rng.choice([12, 24, VOCAB_SIZE])))
    scores, tokens = rules.best(row, rules.rows(prefix[None])[0], count, raw=raw)

    expected = transformers_scores(logits if raw else log_softmax(logits), prefix, settings, IDS)
    assert scores.dtype == np.float32
    assert tokens.dtype == np.int32
    assert len(set(tokens.tolist())) == len(tokens)
    if raw and not rules.has_penalty:
        # Without a penalty greedy search needs the order alone, which log-probabilities have.
        expected = transformers_scores(log_softmax(logits), prefix, settings, IDS)
    np.testing.assert_array_equal(scores, expected[tokens])
    np.testing.assert_array_equal(np.sort(scores)[::-1][:count], np.sort(expected)[::-1][:count])


@pytest.mark.parametrize("seed", range(40))
def test_reference_processes_as_transformers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    settings, prefix = random_settings(rng), random_prefix(rng)
    settings = GenerationSettings(
        **{**settings.__dict__, "max_new_tokens": len(prefix) + int(rng.integers(0, 2))}
    )
    ids = TokenIds(
        bos=0,
        eos=IDS.eos,
        pad=3,
        decoder_start=2,
        forced_bos=[None, 0][seed % 2],
        forced_eos=[None, 1][seed // 2 % 2],
    )
    scores = log_softmax(random_logits(rng, ties=False))
    expected = transformers_scores(scores, prefix, settings, ids)
    actual = process(scores, tuple(prefix.tolist()), settings, ids)
    np.testing.assert_array_equal(actual, expected)


def test_log_softmax_equals_torch_but_for_the_sum() -> None:
    logits = random_logits(np.random.default_rng(0), ties=False)
    expected = torch.log_softmax(torch.tensor(logits), dim=-1).numpy()
    np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", range(1, 16))
def test_repeated_ngrams_equal_transformers(size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(30):
        length = int(rng.integers(1, 60))
        tokens = rng.integers(0, 3 if size > 3 else 8, (4, length)).astype(np.int32)
        if length > 2 * size:  # a repetition of any size happens
            tokens[:, -size:] = tokens[:, :size]
        scores = torch.zeros((4, VOCAB_SIZE))
        processor = NoRepeatNGramLogitsProcessor(size)
        banned = torch.isneginf(processor(torch.tensor(tokens, dtype=torch.int64), scores))
        expected = [set(row.nonzero()[:, 0].tolist()) for row in banned]
        assert repeated_ngram_ends(tokens, size) == expected


def test_ngram_size_zero_is_off() -> None:
    assert repeated_ngram_ends(np.ones((2, 9), np.int32), 0) == [set(), set()]


@pytest.mark.parametrize("min_new_tokens", [0, 1, 3])
def test_eos_is_banned_below_the_minimum(min_new_tokens: int) -> None:
    settings = GenerationSettings(min_new_tokens=min_new_tokens, no_repeat_ngram_size=0)
    rules = LogitsRules(settings, IDS)
    for num_generated in range(5):
        [row] = rules.rows(np.full((1, num_generated + 1), 20, np.int32))
        assert row.banned == (set(IDS.eos) if num_generated < min_new_tokens else set())


@pytest.mark.parametrize(
    ("forced_bos", "forced_eos", "max_new_tokens", "expected"),
    [
        (None, None, 3, [None, None, None]),
        (5, None, 3, [5, None, None]),
        (None, 1, 3, [None, None, 1]),
        (5, 1, 3, [5, None, 1]),
        (5, 1, 1, [1]),  # the processor of eos comes last
        (5, None, 1, [5]),
        (0, 0, 2, [0, 0]),  # id 0 is an id like any other
    ],
)
def test_forced_tokens(
    forced_bos: int | None,
    forced_eos: int | None,
    max_new_tokens: int,
    expected: list[int | None],
) -> None:
    ids = TokenIds(
        bos=0, eos=(1,), pad=3, decoder_start=2, forced_bos=forced_bos, forced_eos=forced_eos
    )
    settings = GenerationSettings(max_new_tokens=max_new_tokens, no_repeat_ngram_size=0)
    rules = LogitsRules(settings, ids)
    assert [rules.forced(n) for n in range(max_new_tokens)] == expected
    for num_generated, token in enumerate(expected):
        prefix = np.full(num_generated + 1, 20, np.int32)
        logits = random_logits(np.random.default_rng(0), ties=False)
        scores = transformers_scores(logits, prefix, settings, ids)
        only = np.flatnonzero(np.isfinite(scores)).tolist()
        assert only == (list(range(VOCAB_SIZE)) if token is None else [token])


@pytest.mark.parametrize("num_candidates", [1, 3, 12, VOCAB_SIZE])
@pytest.mark.parametrize("penalty", [1.0, 1.5, 0.5])
@pytest.mark.parametrize("seed", range(12))
def test_greedy_search_breaks_ties_as_argmax(
    seed: int, penalty: float, num_candidates: int
) -> None:
    """`torch.argmax` takes the lowest id of the best."""
    rng = np.random.default_rng(seed)
    settings = GenerationSettings(
        num_beams=1, max_new_tokens=30, no_repeat_ngram_size=1, repetition_penalty=penalty
    )
    search = GreedySearch(settings, IDS)
    prefix = [IDS.decoder_start]
    while search.generated is None:
        logits = np.round(2 * rng.standard_normal(VOCAB_SIZE).astype(np.float32)) / 2
        scores = transformers_scores(logits, np.array(prefix), settings, IDS)
        row = engine_row(logits, num_candidates)
        wanted = search.prepare(num_candidates)
        search.advance(row.logprobs[None], row.ids[None], logits[None] if wanted else None)
        prefix.append(int(torch.tensor(scores).argmax()))
        assert search.committed() == prefix[1:]


@pytest.mark.parametrize("penalty", [1e-45, 1e-30, 1e30, 3e38])
def test_extreme_penalties_do_not_disturb(penalty: float) -> None:
    settings = GenerationSettings(repetition_penalty=penalty, no_repeat_ngram_size=0)
    rules = LogitsRules(settings, IDS)
    prefix = np.arange(10, dtype=np.int32)
    for raw in (True, False):
        logits = random_logits(np.random.default_rng(0), ties=False)
        row = engine_row(logits, VOCAB_SIZE)
        scores, tokens = rules.best(row, rules.rows(prefix[None])[0], 4, raw=raw)
        expected = transformers_scores(
            logits if raw else log_softmax(logits), prefix, settings, IDS
        )
        np.testing.assert_array_equal(scores, expected[tokens])
