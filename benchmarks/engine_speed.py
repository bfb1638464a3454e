"""Milliseconds of the engines alone, without the generation loop: encode, and a decode step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from kobart_runtime.model_runner import ModelRunner, StepInputs

NUM_REQUESTS = 8
SOURCE_LEN = 512
NUM_ENTRIES = 128  # of the cache, half of them seen
STEPS_A_ROUND = 8
FIRST_TEXT_ID = 107  # below lie control tokens


@dataclass(frozen=True)
class Speed:
    """The best of all rounds."""

    encode_8x512_ms: float
    decode_step_8x1_ms: float
    decode_step_8x4_ms: float


def speeds(runners: Mapping[str, ModelRunner], num_rounds: int) -> dict[str, Speed]:
    """Time engines in turn, after one round that is not counted."""
    works = {name: _works(runner) for name, runner in runners.items()}
    rounds = [
        {name: [work() for work in each] for name, each in works.items()}
        for _ in range(num_rounds + 1)
    ]
    return {
        name: Speed(*np.min([each[name] for each in rounds[1:]], axis=0).round(2).tolist())
        for name in works
    }


def _works(runner: ModelRunner) -> list[Callable[[], float]]:
    """Each runs one kind of work and gives its milliseconds."""
    return [
        encode_timer(runner, NUM_REQUESTS, SOURCE_LEN),
        step_timer(runner, NUM_REQUESTS, SOURCE_LEN, 1),
        step_timer(runner, NUM_REQUESTS, SOURCE_LEN, 4),
    ]


def encode_timer(runner: ModelRunner, num_requests: int, source_len: int) -> Callable[[], float]:
    """Encodes random sources of one length, and gives the milliseconds."""
    ids = _sources(runner, num_requests, source_len)
    return lambda: _ms(lambda: runner.encode(ids, np.ones_like(ids)))


def step_timer(
    runner: ModelRunner, num_requests: int, source_len: int, num_beams: int
) -> Callable[[], float]:
    """Runs some decode steps, and gives the milliseconds of the fastest."""
    ids = _sources(runner, num_requests, source_len)
    encoded = runner.encode(ids, np.ones_like(ids))
    cache = runner.new_cache(num_requests, NUM_ENTRIES, source_len)
    for row in range(num_requests):
        cache.put(row, encoded, row, source_len)
    visible = np.zeros((num_requests, num_beams, NUM_ENTRIES), np.int32)
    visible[:, :, : NUM_ENTRIES // 2] = 1
    inputs = StepInputs(
        decoder_input_ids=np.full((num_requests, num_beams), FIRST_TEXT_ID, np.int32),
        position_ids=np.full((num_requests, 1), NUM_ENTRIES // 2, np.int32),
        decoder_attention_mask=visible,
        new_entries=np.tile(np.arange(num_beams) + NUM_ENTRIES // 2, (num_requests, 1)),
    )

    def step() -> object:
        return runner.decode_step(cache, inputs, want_logits=False)

    return lambda: min(_ms(step) for _ in range(STEPS_A_ROUND))


def _sources(runner: ModelRunner, num_requests: int, source_len: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (num_requests, source_len)
    return rng.integers(FIRST_TEXT_ID, runner.vocab_size, shape, dtype=np.int32)


def _ms(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)
