"""Continuous batching changes no summary: many requests at once equal the reference one by one."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest

from kobart_runtime.generation_loop import GenerationLoop
from kobart_runtime.metrics import Metrics
from kobart_runtime.model_config import TokenIds
from kobart_runtime.request import Request
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings
from tests import reference
from tests.fakes import RecordingListener, ScriptedModel, ScriptedRunner, scripted_config
from tests.patience import PATIENCE_S


@dataclass
class Case:
    source: tuple[int, ...]
    settings: GenerationSettings
    expected: Generated


def random_ids(rng: random.Random, vocab_size: int) -> TokenIds:
    tokens = rng.sample(range(vocab_size), 5)
    return TokenIds(
        bos=tokens[0],
        eos=tuple(tokens[1 : 1 + rng.choice([0, 1, 1, 1, 2, 3])]),
        pad=rng.randrange(vocab_size),
        decoder_start=rng.choice(tokens),
        forced_bos=rng.choice([None, None, tokens[0], tokens[4]]),
        forced_eos=rng.choice([None, tokens[1], rng.randrange(vocab_size)]),
    )


def random_settings(rng: random.Random, max_beams: int) -> GenerationSettings:
    return GenerationSettings(
        num_beams=rng.randint(1, max_beams),
        max_new_tokens=rng.choice([1, 2, 3, rng.randint(4, 24)]),
        min_new_tokens=rng.choice([0, 0, 1, rng.randint(0, 30)]),
        no_repeat_ngram_size=rng.choice([0, 0, 1, 2, 3, 4, 15]),
        repetition_penalty=rng.choice([1.0, 1.0, 1.2, 2.5, 0.7]),
        length_penalty=rng.choice([1.0, 0.0, 2.0, 0.5, -1.0, -0.3]),
        early_stopping=rng.random() < 0.5,
    )


def random_cases(
    rng: random.Random, model: ScriptedModel, ids: TokenIds, count: int, max_beams: int
) -> list[Case]:
    """Cases for which `generate()` has one answer."""
    cases: list[Case] = []
    for _ in range(20 * count):
        source = tuple(rng.randrange(model.vocab_size) for _ in range(rng.randint(1, 90)))
        settings = random_settings(rng, max_beams)
        try:
            cases.append(
                Case(source, settings, reference.generate(model.of(source), settings, ids))
            )
        except reference.UndeterminedError:
            continue
        if len(cases) == count:
            return cases
    raise AssertionError("hardly any case has one answer")


def run_together(
    runner: ScriptedRunner, ids: TokenIds, cases: list[Case], max_batch_size: int
) -> list[RecordingListener]:
    """Submit all before the first is encoded, and wait for all."""
    gate = threading.Event()
    runner.before_encode = lambda _: _wait(gate)
    config = scripted_config(runner, ids, max_batch_size=max_batch_size)
    loop = GenerationLoop(runner, config, Metrics())
    listeners = [RecordingListener() for _ in cases]
    for number, (case, listener) in enumerate(zip(cases, listeners, strict=True)):
        input_ids = np.array(case.source, np.int32)
        loop.submit(Request(input_ids, case.settings, listener, stream=number % 3 > 0))
    gate.set()
    loop.close()
    return listeners


def _wait(gate: threading.Event) -> None:
    assert gate.wait(PATIENCE_S)


def check(cases: list[Case], listeners: list[RecordingListener]) -> None:
    for number, (case, listener) in enumerate(zip(cases, listeners, strict=True)):
        assert listener.num_ends == 1
        assert listener.result() == case.expected, case.settings
        streamed = listener.streamed
        assert tuple(streamed) == case.expected.ids[: len(streamed)], case.settings
        assert all(listener.pieces), "an empty piece was streamed"
        if number % 3 == 0:
            assert not streamed
        elif case.settings.num_beams == 1:
            assert len(streamed) == len(case.expected.ids) - 1


@pytest.mark.parametrize("seed", range(16))
def test_batching_changes_no_summary(seed: int) -> None:
    rng = random.Random(seed)
    vocab_size = rng.choice([40, 60, 200])
    model = ScriptedModel(vocab_size, seed)
    ids = random_ids(rng, vocab_size)
    num_candidates = rng.choice([4, 16, 48, vocab_size])
    runner = ScriptedRunner(model, num_candidates)
    cases = random_cases(rng, model, ids, 24, max_beams=8)
    listeners = run_together(runner, ids, cases, max_batch_size=rng.choice([1, 3, 8, 32]))
    check(cases, listeners)


@pytest.mark.parametrize("seed", range(16))
def test_rules_that_strike_out_most_of_a_small_vocabulary(seed: int) -> None:
    rng = random.Random(1000 + seed)
    vocab_size = rng.randint(8, 14)
    model = ScriptedModel(vocab_size, seed)
    ids = random_ids(rng, vocab_size)
    runner = ScriptedRunner(model, rng.choice([2, 5, vocab_size, 100]))
    cases = random_cases(rng, model, ids, 24, max_beams=3)
    check(cases, run_together(runner, ids, cases, max_batch_size=8))


@pytest.mark.parametrize("no_repeat_ngram_size", [0, 1, 2])
@pytest.mark.parametrize("num_beams", [2, 4, 8])
@pytest.mark.parametrize("num_candidates", [1, 2, 3])
def test_too_few_candidates_fall_back_to_all_logits(
    num_candidates: int, num_beams: int, no_repeat_ngram_size: int
) -> None:
    rng = random.Random(num_candidates)
    model = ScriptedModel(50)
    ids = TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2, forced_eos=1)
    runner = ScriptedRunner(model, num_candidates)
    settings = GenerationSettings(
        num_beams=num_beams, max_new_tokens=12, no_repeat_ngram_size=no_repeat_ngram_size
    )
    cases = []
    for number in range(5):
        source, early = (number, 7), replace(settings, early_stopping=rng.random() < 0.5)
        cases.append(Case(source, early, reference.generate(model.of(source), early, ids)))
    check(cases, run_together(runner, ids, cases, max_batch_size=32))
    num_forced = sum(len(case.expected.ids) == 12 for case in cases)
    assert runner.num_steps - 1 <= runner.num_logits_steps + bool(num_forced)


def test_a_greedy_row_whose_only_candidate_is_struck_out_falls_back() -> None:
    model = ScriptedModel(50)
    ids = TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2)
    runner = ScriptedRunner(model, num_candidates=1)
    settings = GenerationSettings(num_beams=1, max_new_tokens=40, no_repeat_ngram_size=1)
    cases = []
    for number in range(8):
        source = (number,)
        cases.append(Case(source, settings, reference.generate(model.of(source), settings, ids)))
    check(cases, run_together(runner, ids, cases, max_batch_size=32))
    assert runner.num_logits_steps == runner.num_steps > 1


def test_logits_stay_on_the_device_when_candidates_suffice() -> None:
    model = ScriptedModel(300)
    ids = TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2, forced_bos=5, forced_eos=1)
    runner = ScriptedRunner(model, num_candidates=32)
    settings = GenerationSettings(num_beams=8, max_new_tokens=30, no_repeat_ngram_size=2)
    cases = []
    for number in range(6):
        source = (number, 7)
        cases.append(Case(source, settings, reference.generate(model.of(source), settings, ids)))
    check(cases, run_together(runner, ids, cases, max_batch_size=32))
    assert runner.num_steps > 0
    assert runner.num_logits_steps == 0
