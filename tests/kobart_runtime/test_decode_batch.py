"""Slots come and go in any order, and every sequence keeps its own cache."""

from __future__ import annotations

import random

import numpy as np
import pytest

from kobart_runtime.beam_search import BeamSearch
from kobart_runtime.decode_batch import DecodeBatch, Sequence
from kobart_runtime.errors import SlotStateError
from kobart_runtime.greedy_search import GreedySearch
from kobart_runtime.model_config import TokenIds
from kobart_runtime.request import Request
from kobart_runtime.scheduler import pad_sources
from kobart_runtime.settings import GenerationSettings
from tests import reference
from tests.fakes import RecordingListener, ScriptedCache, ScriptedModel, ScriptedRunner

VOCAB_SIZE = 60
IDS = TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2)


def new_sequence(source: tuple[int, ...], num_beams: int, max_new_tokens: int) -> Sequence:
    settings = GenerationSettings(
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        min_new_tokens=max_new_tokens,
        no_repeat_ngram_size=0,
    )
    request = Request(np.array(source, np.int32), settings, RecordingListener())
    kind = GreedySearch if num_beams == 1 else BeamSearch
    return Sequence(request, kind(settings, IDS))


def random_sequence(rng: random.Random, num_beams: int) -> Sequence:
    source = tuple(rng.randrange(VOCAB_SIZE) for _ in range(rng.choice([1, 3, 70, 200])))
    return new_sequence(source, num_beams, rng.choice([1, 5, 20, 45]))


def admit(batch: DecodeBatch, runner: ScriptedRunner, *sequences: Sequence) -> None:
    encoded = runner.encode(*pad_sources([s.request for s in sequences], IDS.pad))
    for row, sequence in enumerate(sequences):
        batch.admit({row: sequence}, encoded)


def retire_ended(batch: DecodeBatch) -> list[Sequence]:
    ended = [sequence for sequence in batch.sequences if sequence.search.generated is not None]
    for sequence in ended:
        batch.retire(sequence)
    return ended


def cache_of(runner: ScriptedRunner) -> ScriptedCache:
    return runner.caches[0]


def assert_equals_reference(model: ScriptedModel, sequence: Sequence) -> None:
    request = sequence.request
    next_logits = model.of(request.input_ids.tolist())
    assert sequence.search.generated == reference.generate(next_logits, request.settings, IDS)


@pytest.mark.parametrize("num_beams", [1, 2, 4, 7])
@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_admitting_and_retiring(num_beams: int, seed: int) -> None:
    rng = random.Random(seed)
    model = ScriptedModel(VOCAB_SIZE, seed)
    runner = ScriptedRunner(model)  # checks every beam's entries at every step
    batch = DecodeBatch(runner, num_beams)
    num_to_admit = 20
    while num_to_admit or batch.sequences:
        if num_to_admit and rng.random() < 0.3:
            count = min(num_to_admit, rng.randint(1, 4))
            admit(batch, runner, *(random_sequence(rng, num_beams) for _ in range(count)))
            num_to_admit -= count
        if batch.sequences and rng.random() < 0.03:
            batch.retire(rng.choice(batch.sequences))  # cancelled half way
        if batch.sequences:
            batch.step()
        for sequence in retire_ended(batch):
            assert_equals_reference(model, sequence)
        assert cache_of(runner).num_slots <= max(4, 4 * len(batch.sequences))
    cache = cache_of(runner)
    assert (cache.num_slots, cache.num_entries, cache.source_len) == (0, 0, 0)


@pytest.mark.parametrize("num_beams", [1, 4, 8])
def test_entries_of_forgotten_beams_are_used_again(num_beams: int) -> None:
    """The cache holds little more than one beam's tokens, not those of all beams."""
    runner = ScriptedRunner(ScriptedModel(VOCAB_SIZE))
    batch = DecodeBatch(runner, num_beams)
    num_tokens = 120
    admit(batch, runner, *(new_sequence((n,), num_beams, num_tokens) for n in range(4)))
    while not retire_ended(batch):
        batch.step()
    assert runner.max_entries <= 2 * num_tokens


def test_room_shrinks_when_the_large_leave() -> None:
    model = ScriptedModel(VOCAB_SIZE)
    runner = ScriptedRunner(model)
    batch = DecodeBatch(runner, 2)
    long_lived = new_sequence((5, 6), 2, 110)
    large = [new_sequence((7,) * 500, 2, 110) for _ in range(15)]
    admit(batch, runner, *large)
    for _ in range(90):
        batch.step()
    admit(batch, runner, long_lived)
    cache = cache_of(runner)
    assert (cache.num_slots, cache.source_len) == (16, 512)
    assert cache.num_entries >= 90
    for sequence in large:
        batch.retire(sequence)
        batch.step()
    assert (cache.num_slots, cache.source_len) == (2, 64)
    assert cache.num_entries <= 64
    while not retire_ended(batch):
        batch.step()
    assert_equals_reference(model, long_lived)


def test_a_wrong_width_is_refused() -> None:
    runner = ScriptedRunner(ScriptedModel(VOCAB_SIZE))
    batch = DecodeBatch(runner, 4)
    with pytest.raises(SlotStateError, match="a sequence of 2 beams in a batch of 4"):
        admit(batch, runner, new_sequence((5,), 2, 3))
    assert batch.sequences == []


def test_the_last_slot_moves_into_the_gap() -> None:
    runner = ScriptedRunner(ScriptedModel(VOCAB_SIZE))
    batch = DecodeBatch(runner, 1)
    first, second, third, fourth = (new_sequence((n,), 1, 9) for n in range(4))
    admit(batch, runner, first, second, third, fourth)
    batch.retire(second)
    assert batch.sequences == [first, fourth, third]
    batch.retire(third)
    assert batch.sequences == [first, fourth]
    assert cache_of(runner).sources[:2] == [(0,), (3,)]
