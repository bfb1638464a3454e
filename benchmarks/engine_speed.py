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
    ids = np.random.default_rng(0).integers(
        FIRST_TEXT_ID, runner.vocab_size, (NUM_REQUESTS, SOURCE_LEN), dtype=np.int32
    )
    mask = np.ones_like(ids)
    return [
        lambda: _ms(lambda: runner.encode(ids, mask)),
        _steps(runner, runner.encode(ids, mask), 1),
        _steps(runner, runner.encode(ids, mask), 4),
    ]


def _steps(runner: ModelRunner, encoded: object, num_beams: int) -> Callable[[], float]:
    cache = runner.new_cache(NUM_REQUESTS, NUM_ENTRIES, SOURCE_LEN)
    for row in range(NUM_REQUESTS):
        cache.put(row, encoded, row, SOURCE_LEN)
    visible = np.zeros((NUM_REQUESTS, num_beams, NUM_ENTRIES), np.int32)
    visible[:, :, : NUM_ENTRIES // 2] = 1
    inputs = StepInputs(
        decoder_input_ids=np.full((NUM_REQUESTS, num_beams), FIRST_TEXT_ID, np.int32),
        position_ids=np.full((NUM_REQUESTS, 1), NUM_ENTRIES // 2, np.int32),
        decoder_attention_mask=visible,
        new_entries=np.tile(np.arange(num_beams) + NUM_ENTRIES // 2, (NUM_REQUESTS, 1)),
    )

    def step() -> object:
        return runner.decode_step(cache, inputs, want_logits=False)

    return lambda: min(_ms(step) for _ in range(STEPS_A_ROUND))


def _ms(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)
