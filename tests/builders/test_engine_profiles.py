"""Profiles cover every shape that the generation loop can ask for, each shape once."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.profiles import (
    Profile,
    Step,
    decoder_profiles,
    encoder_profiles,
    step_shapes,
)
from kobart_runtime import bindings
from kobart_runtime.admission import ENTRIES_STEP, SOURCE_STEP, round_up
from kobart_runtime.decode_batch import DecodeBatch, Sequence
from kobart_runtime.model_config import ModelShape, TokenIds
from kobart_runtime.request import Request
from kobart_runtime.scheduler import TOKENS_WHEN_IDLE, WaitingQueue, pad_sources
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings, Limits
from tests.fakes import RecordingListener, ScriptedModel, ScriptedRunner

SHAPE = ModelShape(num_decoder_layers=2, num_heads=4, head_dim=8, vocab_size=40, num_candidates=16)
IDS = TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2, forced_eos=None)
LIMITS = [
    Limits(),
    Limits(max_batch_size=1, max_source_length=64, max_target_length=1, max_beams=1),
    Limits(max_batch_size=5, max_source_length=129, max_target_length=30, max_beams=3),
    Limits(max_batch_size=100, max_source_length=700, max_target_length=40, max_beams=8),
]


def accepting(profiles: list[Profile], shapes: dict[str, tuple[int, ...]]) -> list[int]:
    """Profiles that accept these inputs."""

    def accepts(profile: Profile) -> bool:
        return all(
            low <= size <= high
            for name, shape in shapes.items()
            for low, size, high in zip(profile[name].min, shape, profile[name].max, strict=True)
        )

    return [index for index, profile in enumerate(profiles) if accepts(profile)]


@pytest.mark.parametrize("limits", LIMITS)
def test_profiles_are_well_formed(limits: Limits) -> None:
    for profile in (*encoder_profiles(limits), *decoder_profiles(SHAPE, limits)):
        for sizes in profile.values():
            for low, usual, high in zip(sizes.min, sizes.opt, sizes.max, strict=True):
                assert 1 <= low <= usual <= high


def random_request(rng: random.Random, limits: Limits) -> Request:
    # Long ones among them: those meet the limits.
    length = rng.choice([1, limits.max_source_length, rng.randint(1, limits.max_source_length)])
    source = np.array([rng.randrange(SHAPE.vocab_size) for _ in range(length)], np.int32)
    return Request(source, GenerationSettings(), RecordingListener())


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("idle", [True, False])
def test_every_batch_that_the_scheduler_takes_has_one_encoder_profile(
    limits: Limits, idle: bool
) -> None:
    rng = random.Random(limits.max_batch_size)
    profiles = encoder_profiles(limits)
    largest = 0
    for length in (1, 16, 127, 128, 129, 400, 512, 513, limits.max_source_length):
        queue = WaitingQueue(1000)
        size = min(length, limits.max_source_length)
        for request in [random_request(rng, limits) for _ in range(150)]:
            queue.append(request)
        for _ in range(100):  # many of one length: the largest batches
            same = np.full(size, 5, np.int32)
            queue.append(Request(same, GenerationSettings(), RecordingListener()))
        while batch := queue.take(
            rng.randint(1, limits.max_batch_size), idle=idle, fits=lambda _: True
        ):
            input_ids, mask = pad_sources(batch, IDS.pad)
            shapes = {bindings.INPUT_IDS: input_ids.shape, bindings.ATTENTION_MASK: mask.shape}
            assert len(accepting(profiles, shapes)) == 1, shapes
            largest = max(largest, len(batch))
    assert largest > 1 or limits.max_batch_size == 1


@pytest.mark.parametrize("limits", LIMITS)
def test_batch_sizes_have_one_decoder_profile_each(limits: Limits) -> None:
    profiles = decoder_profiles(SHAPE, limits)
    for requests in range(1, limits.max_batch_size + 1):
        assert len(accepting(profiles, {bindings.POSITION_IDS: (requests, 1)})) == 1
    assert not accepting(profiles, {bindings.POSITION_IDS: (limits.max_batch_size + 1, 1)})


@st.composite
def any_limits(draw: st.DrawFn) -> Limits:
    return Limits(
        max_batch_size=draw(st.integers(1, 128)),
        max_source_length=draw(st.integers(1, 1024)),
        max_target_length=draw(st.integers(1, 256)),
        max_beams=draw(st.integers(1, 16)),
    )


@settings(max_examples=60, deadline=None)
@given(limits=any_limits(), data=st.data())
def test_every_bucket_has_one_profile_whatever_the_limits(
    limits: Limits, data: st.DataObject
) -> None:
    """The shapes by the rules of scheduler, cache and runner; the tests above run those."""
    source = data.draw(st.integers(1, limits.max_source_length))
    rows = data.draw(st.integers(1, max(1, min(limits.max_batch_size, TOKENS_WHEN_IDLE // source))))
    sizes = (rows, source)
    encoded: dict[str, tuple[int, ...]] = {
        bindings.INPUT_IDS: sizes,
        bindings.ATTENTION_MASK: sizes,
    }
    assert len(accepting(encoder_profiles(limits), encoded)) == 1
    requests = data.draw(st.integers(1, limits.max_batch_size))
    padded = min(1 << (requests - 1).bit_length(), limits.max_batch_size)
    beams = data.draw(st.integers(1, limits.max_beams))
    seen = data.draw(st.integers(1, beams * limits.max_target_length))
    step = Step(padded, beams, round_up(seen, ENTRIES_STEP), round_up(source, SOURCE_STEP))
    shapes = step_shapes(SHAPE, step)
    profiles = decoder_profiles(SHAPE, limits)
    assert all(set(profile) == set(shapes) for profile in profiles)
    assert len(accepting(profiles, shapes)) == 1, shapes


class DivergingSearch:
    """Beams that never share an ancestor: they fill the cache as much as beams can."""

    generated: Generated | None = None

    def __init__(self, num_beams: int) -> None:
        self.num_beams = num_beams
        self.num_generated = 0

    @property
    def input_ids(self) -> np.ndarray:
        return np.full(self.num_beams, 5, np.int32)

    def prepare(self, num_candidates: int) -> bool:
        return False

    def advance(self, logprobs: Any, ids: Any, logits: Any) -> np.ndarray:
        self.num_generated += 1
        return np.arange(self.num_beams)

    def committed(self) -> list[int]:
        return []


class ShapeRecorder(ScriptedRunner):
    """Records the size of every decode step."""

    def __init__(self) -> None:
        super().__init__(ScriptedModel(SHAPE.vocab_size, 0), SHAPE.num_candidates)
        self.steps: list[tuple[int, int, int, int]] = []

    def decode_step(self, cache: Any, inputs: Any, *, want_logits: bool) -> Any:
        requests, beams, entries = inputs.decoder_attention_mask.shape
        self.steps.append((requests, beams, entries, cache.source_len))
        assert entries == cache.num_entries
        zeros = np.zeros((requests, beams, self.num_candidates))
        return type("Output", (), {
            "candidate_logprobs": zeros, "candidate_ids": zeros, "logits": None
        })()  # fmt: skip


@pytest.mark.parametrize("limits", LIMITS[1:])
def test_every_step_of_a_decode_batch_has_one_decoder_profile(limits: Limits) -> None:
    rng = random.Random(3)
    profiles = decoder_profiles(SHAPE, limits)
    for num_beams in {1, limits.max_beams}:
        runner = ShapeRecorder()
        batch = DecodeBatch(runner, num_beams)
        for _ in range(min(limits.max_batch_size, 9)):
            request = random_request(rng, limits)
            encoded = runner.encode(*pad_sources([request], IDS.pad))
            batch.admit({0: Sequence(request, DivergingSearch(num_beams))}, encoded)
        for _ in range(limits.max_target_length):
            batch.step()
        for requests, beams, entries, source in runner.steps:
            shapes = {
                bindings.DECODER_ATTENTION_MASK: (requests, beams, entries),
                bindings.ENCODER_ATTENTION_MASK: (requests, source),
            }
            assert len(accepting(profiles, shapes)) == 1, shapes
        most = max(step[2] for step in runner.steps)
        assert most == -(-num_beams * limits.max_target_length // 32) * 32
